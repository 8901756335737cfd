/* Uses every macro that defines something, in C and in C++. */
#include "chimera/draft/residency.h"
#include "chimera/services.h"

CHIMERA_EXPERT_NOTE("org.chimera.header-matrix", "1.0.0", "");

static const chimera_text kLabel = CHIMERA_TEXT("label");

static int32_t init(const chimera_init_info* info_borrowed) {
  return info_borrowed->abi_major == CHIMERA_ABI_MAJOR ? CHIMERA_OK : CHIMERA_FAILED_PRECONDITION;
}

static void deinit(void) {}

static const void* get_factory(const char* factory_id_borrowed) {
  return factory_id_borrowed[0] == kLabel.data_borrowed[0] ? &kLabel : NULL;
}

uint64_t newest_epoch(const chimera_expert_batch* batch_borrowed);
uint64_t newest_epoch(const chimera_expert_batch* batch_borrowed) {
  return CHIMERA_HAS_FIELD(chimera_expert_batch, batch_borrowed, epoch) ? batch_borrowed->epoch : 0;
}

CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = {CHIMERA_EXPERT_MAGIC,
                                                                     sizeof(chimera_expert_entry),
                                                                     CHIMERA_ABI_MAJOR,
                                                                     CHIMERA_ABI_MINOR,
                                                                     0,
                                                                     0,
                                                                     CHIMERA_ENTRY_UNLOAD_CLEAN,
                                                                     init,
                                                                     deinit,
                                                                     get_factory};
