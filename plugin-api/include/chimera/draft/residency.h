/* chimera.residency.draft/1 (plugin side): memory the host does not see.
 *
 * Weights compiled into the library, or mapped by the plugin itself, are not accounted by
 * chimera.memory/1. The host adds this figure to the module's resident bytes. DRAFT: may change. */
#ifndef CHIMERA_DRAFT_RESIDENCY_H_
#define CHIMERA_DRAFT_RESIDENCY_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_RESIDENCY_DRAFT_ID "chimera.residency.draft/1"

typedef struct chimera_expert_residency {
  uint32_t struct_size;
  uint32_t reserved;
  /* Bytes that this instance keeps resident beside chimera.memory/1. [control & active] */
  uint64_t (*resident_bytes)(chimera_expert* self);
} chimera_expert_residency;

CHIMERA_FROZEN_SIZE(chimera_expert_residency, 16);
CHIMERA_FROZEN_OFFSET(chimera_expert_residency, resident_bytes, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_DRAFT_RESIDENCY_H_ */
