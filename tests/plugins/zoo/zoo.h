/* A small plugin that keeps the contract, with a hook at every place where one can break it.
 *
 * Each plugin of the zoo defines the hooks of its one sin and includes this file; good.c defines
 * none. y[i] = weight[i] * x[i] + x[(i + 1) % d], with the weights in memory of the host. */
#ifndef ZOO_H_
#define ZOO_H_

#include <stdlib.h>
#include <string.h>

#include "chimera/services.h"

#ifdef __cplusplus
#define ZOO_CAST(type, value) static_cast<type>(value)
#else
#define ZOO_CAST(type, value) ((type)(value))
#endif

#define ZOO_D 20 /* 80 bytes: a row ends before its stride of 128 */

#ifndef ZOO_ID
#define ZOO_ID "org.chimera.zoo"
#endif
#ifndef ZOO_VERSION
#define ZOO_VERSION "1.0.0"
#endif
#ifndef ZOO_NOTE
#define ZOO_NOTE CHIMERA_EXPERT_NOTE(ZOO_ID, ZOO_VERSION, "zoo")
#endif
#ifndef ZOO_FLAGS
#define ZOO_FLAGS CHIMERA_ENTRY_UNLOAD_CLEAN
#endif
#ifndef ZOO_MAJOR
#define ZOO_MAJOR CHIMERA_ABI_MAJOR
#endif
#ifndef ZOO_MAX_ROWS
#define ZOO_MAX_ROWS 32
#endif
#ifndef ZOO_SCRATCH
#define ZOO_SCRATCH 128
#endif
#ifndef ZOO_CPU
#define ZOO_CPU 0
#endif
#ifndef ZOO_DESCRIPTOR
#define ZOO_DESCRIPTOR static const
#endif
#ifndef ZOO_CONCURRENCY
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_REENTRANT
#endif
#ifndef ZOO_REQUIRED
#define ZOO_REQUIRED CHIMERA_MEMORY_ID
#endif
#ifndef ZOO_ON_INIT
#define ZOO_ON_INIT() CHIMERA_OK
#endif
#ifndef ZOO_ON_DEINIT
#define ZOO_ON_DEINIT()
#endif
#ifndef ZOO_IS_ID
#define ZOO_IS_ID(id) (strcmp(id, ZOO_ID) == 0)
#endif
#ifndef ZOO_IS_FACTORY
#define ZOO_IS_FACTORY(id) (strcmp(id, CHIMERA_EXPERT_FACTORY_ID) == 0)
#endif
#ifndef ZOO_ON_CREATE
#define ZOO_ON_CREATE(host)
#endif
#ifndef ZOO_ON_PREPARE
#define ZOO_ON_PREPARE(z, config)
#endif
#ifndef ZOO_ON_ACTIVATE
#define ZOO_ON_ACTIVATE(z)
#endif
#ifndef ZOO_NO_MEMORY
#define ZOO_NO_MEMORY(z) return CHIMERA_RESOURCE_EXHAUSTED
#endif
#ifndef ZOO_ON_DEACTIVATE
#define ZOO_ON_DEACTIVATE(z) (z)->memory->release((z)->host, (z)->weights)
#endif
#ifndef ZOO_ON_DESTROY
#define ZOO_ON_DESTROY(z)
#endif
#ifndef ZOO_ON_RESET
#define ZOO_ON_RESET(z)
#endif
#ifndef ZOO_ROWS_TOO_MANY
#define ZOO_ROWS_TOO_MANY(z, b) ((b)->n_rows > (z)->max_rows)
#endif
#ifndef ZOO_ON_FORWARD
#define ZOO_ON_FORWARD(z, b)
#endif
#ifndef ZOO_ROW
#define ZOO_ROW(z, b, r, x, y) zoo_row(z, x, y)
#endif
#ifndef ZOO_AFTER_FORWARD
#define ZOO_AFTER_FORWARD(z, b)
#endif
#ifndef ZOO_STATE
#define ZOO_STATE
#endif

typedef struct zoo {
  chimera_expert abi;
  const chimera_host* host;
  const chimera_host_memory* memory;
  float* weights; /* [ZOO_D] */
  uint32_t max_rows;
  ZOO_STATE
} zoo;

static inline void zoo_row(const zoo* z, const float* x, float* y) {
  for (int i = 0; i < ZOO_D; ++i) y[i] = z->weights[i] * x[i] + x[(i + 1) % ZOO_D];
}

static inline zoo* zoo_of(chimera_expert* self) { return ZOO_CAST(zoo*, self->plugin_data_owned); }

ZOO_NOTE;

static const chimera_expert_layer zoo_layers[] = {{0, 2}, {3, 1}};
static const char* const zoo_required[] = {ZOO_REQUIRED};
static const char* const zoo_optional[] = {CHIMERA_LOG_ID};

ZOO_DESCRIPTOR chimera_expert_descriptor zoo_descriptor = {
    sizeof(chimera_expert_descriptor),
    0,
    ZOO_ID,
    CHIMERA_TEXT(ZOO_VERSION),
    CHIMERA_TEXT("Chimera"),
    CHIMERA_TEXT("Apache-2.0"),
    CHIMERA_TEXT("test material"),
    NULL,
    0,
    {NULL, 0},
    ZOO_D,
    0,
    zoo_layers,
    2,
    CHIMERA_DTYPE_F32,
    CHIMERA_DTYPE_F32,
    ZOO_MAX_ROWS,
    0,
    ZOO_CONCURRENCY,
    CHIMERA_DETERMINISM_BITWISE,
    ZOO_SCRATCH,
    ZOO_CPU,
    zoo_required,
    sizeof(zoo_required) / sizeof(zoo_required[0]),
    zoo_optional,
    1,
    0,
    0};

static int32_t zoo_prepare(chimera_expert* self, chimera_text config) {
  zoo* z = zoo_of(self);
  (void)config;
  z->memory =
      ZOO_CAST(const chimera_host_memory*, z->host->get_service(z->host, CHIMERA_MEMORY_ID));
  if (z->memory == NULL) return CHIMERA_FAILED_PRECONDITION;
  ZOO_ON_PREPARE(z, config);
  return CHIMERA_OK;
}

static int32_t zoo_activate(chimera_expert* self, const chimera_expert_limits* limits) {
  zoo* z = zoo_of(self);
  ZOO_ON_ACTIVATE(z);
  z->max_rows = limits->max_rows;
  z->weights = ZOO_CAST(float*, z->memory->allocate(z->host, ZOO_D * sizeof(float), 0, 0));
  if (z->weights == NULL) ZOO_NO_MEMORY(z);
  for (int i = 0; i < ZOO_D; ++i) z->weights[i] = 0.5f + 0.25f * ZOO_CAST(float, i % 7);
  return CHIMERA_OK;
}

static int32_t zoo_forward(chimera_expert* self, const chimera_expert_batch* b) {
  zoo* z = zoo_of(self);
  if (ZOO_ROWS_TOO_MANY(z, b)) return CHIMERA_INVALID_ARGUMENT;
  if (!((b->layer == 0 && b->expert < 2) || (b->layer == 3 && b->expert < 1))) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  ZOO_ON_FORWARD(z, b);
  for (uint32_t r = 0; r < b->n_rows; ++r) {
    const void* x_row = ZOO_CAST(const unsigned char*, b->x_borrowed) + r * b->x_stride;
    void* y_row = ZOO_CAST(unsigned char*, b->y_borrowed) + r * b->y_stride;
    const float* x = ZOO_CAST(const float*, x_row);
    float* y = ZOO_CAST(float*, y_row);
    ZOO_ROW(z, b, r, x, y);
  }
  ZOO_AFTER_FORWARD(z, b);
  return CHIMERA_OK;
}

static int32_t zoo_reset(chimera_expert* self) {
  (void)self;
  ZOO_ON_RESET(zoo_of(self));
  return CHIMERA_OK;
}

static void zoo_deactivate(chimera_expert* self) {
  (void)self;
  ZOO_ON_DEACTIVATE(zoo_of(self));
}

static void zoo_destroy(chimera_expert* self) {
  ZOO_ON_DESTROY(zoo_of(self));
  free(zoo_of(self));
}

static const void* zoo_extension(chimera_expert* self, const char* id) {
  (void)self;
  (void)id;
  return NULL;
}

static uint32_t zoo_count(void) { return 1; }

static const chimera_expert_descriptor* zoo_describe(uint32_t index) {
  return index == 0 ? &zoo_descriptor : NULL;
}

static chimera_expert* zoo_create(const char* id, const chimera_host* host) {
  if (!ZOO_IS_ID(id)) return NULL;
  zoo* z = ZOO_CAST(zoo*, calloc(1, sizeof(zoo)));
  if (z == NULL) return NULL;
  ZOO_ON_CREATE(host);
  chimera_expert abi = {sizeof(chimera_expert),
                        0,
                        &zoo_descriptor,
                        z,
                        zoo_prepare,
                        zoo_activate,
                        zoo_forward,
                        zoo_reset,
                        zoo_deactivate,
                        zoo_destroy,
                        zoo_extension};
  z->abi = abi;
  z->host = host;
  return &z->abi;
}

static const chimera_expert_factory zoo_factory = {sizeof(chimera_expert_factory), 0, zoo_count,
                                                   zoo_describe, zoo_create};

static int32_t zoo_init(const chimera_init_info* info) {
  (void)info;
  return ZOO_ON_INIT();
}

static void zoo_deinit(void) { ZOO_ON_DEINIT(); }

static const void* zoo_get_factory(const char* id) {
  return ZOO_IS_FACTORY(id) ? &zoo_factory : NULL;
}

CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = {CHIMERA_EXPERT_MAGIC,
                                                                     sizeof(chimera_expert_entry),
                                                                     ZOO_MAJOR,
                                                                     CHIMERA_ABI_MINOR,
                                                                     0,
                                                                     0,
                                                                     ZOO_FLAGS,
                                                                     zoo_init,
                                                                     zoo_deinit,
                                                                     zoo_get_factory};

#endif /* ZOO_H_ */
