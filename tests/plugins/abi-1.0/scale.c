/* A plugin for the tests of the loader: y = factor * (layer + 1) * (expert + 2) * x, two experts in
 * each of two layers of 16 values. The factor is SCALE_FACTOR, or the text of library.config.
 *
 * scale.so beside this file was built from it against the headers of ABI 1.0 and is kept as it is:
 * a host that no longer loads it has broken every plugin there is. See README.md. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "chimera/expert.h"
#include "chimera/services/error.h"
#include "chimera/services/log.h"
#include "chimera/services/memory.h"
#include "chimera/services/metrics.h"
#include "chimera/services/parallel.h"
#include "chimera/services/thread_check.h"
#include "chimera/services/weights.h"

#ifndef SCALE_FACTOR
#define SCALE_FACTOR 1.0f
#endif
#ifndef SCALE_VERSION
#define SCALE_VERSION "1.0.0"
#endif
#ifndef SCALE_FLAGS
#define SCALE_FLAGS CHIMERA_ENTRY_UNLOAD_CLEAN
#endif
#ifndef SCALE_CONCURRENCY
#define SCALE_CONCURRENCY CHIMERA_CONCURRENCY_REENTRANT
#endif

#define SCALE_ID "org.chimera.test.scale"
CHIMERA_EXPERT_NOTE(SCALE_ID, SCALE_VERSION, "abi-1.0");

enum { kModel = 16, kMaxRows = 8, kMaxInstances = 16 };

typedef struct scale {
  chimera_expert expert;
  const chimera_host* host;
  const chimera_host_memory* memory;
  const chimera_host_parallel* parallel;
  const chimera_host_metrics* metrics;
  const chimera_host_thread_check* threads;
  float* factor; /* in memory of the host */
  float wish;
  uint32_t rows;
  int used;
} scale;

static const chimera_expert_layer kLayers[] = {{0, 2}, {1, 2}};
static const char* const kRequired[] = {CHIMERA_MEMORY_ID, CHIMERA_LOG_ID};
static const chimera_text kDomains[] = {CHIMERA_TEXT("test")};

static const chimera_expert_descriptor kDescriptor = {
    .struct_size = sizeof(chimera_expert_descriptor),
    .id_borrowed = SCALE_ID,
    .version = CHIMERA_TEXT(SCALE_VERSION),
    .vendor = CHIMERA_TEXT("Chimera"),
    .license = CHIMERA_TEXT("Apache-2.0"),
    .description = CHIMERA_TEXT("Scales its input"),
    .domains_borrowed = kDomains,
    .domain_count = 1,
    .d_model = kModel,
    .layers_borrowed = kLayers,
    .layer_count = 2,
    .input_dtype = CHIMERA_DTYPE_F32,
    .output_dtype = CHIMERA_DTYPE_F32,
    .max_rows = kMaxRows,
    .concurrency = SCALE_CONCURRENCY,
    .determinism = CHIMERA_DETERMINISM_BITWISE,
    .scratch_bytes = 64,
    .required_services_borrowed = kRequired,
    .required_service_count = 2,
};

/* Instances come from a static array: create only allocates, and without malloc there is nothing
 * to leak. */
static scale g_instances[kMaxInstances];

static int32_t fail(const scale* s, int32_t status, const char* text) {
  const chimera_host_error* error = s->host->get_service(s->host, CHIMERA_ERROR_ID);
  if (error != NULL) error->set(s->host, (chimera_text){text, strlen(text)});
  return status;
}

static int32_t prepare(chimera_expert* self, chimera_text config) {
  scale* s = self->plugin_data_owned;
  s->memory = s->host->get_service(s->host, CHIMERA_MEMORY_ID);
  s->parallel = s->host->get_service(s->host, CHIMERA_PARALLEL_ID);
  s->metrics = s->host->get_service(s->host, CHIMERA_METRICS_ID);
  s->threads = s->host->get_service(s->host, CHIMERA_THREAD_CHECK_ID);
  if (s->memory == NULL) return fail(s, CHIMERA_FAILED_PRECONDITION, "no chimera.memory/1");
  if (s->threads != NULL && s->threads->role(s->host) != CHIMERA_ROLE_CONTROL) {
    return fail(s, CHIMERA_INTERNAL, "prepare: called outside the control role");
  }
  if (s->metrics != NULL) {
    const chimera_text name = CHIMERA_TEXT("rows");
    s->rows = s->metrics->counter(s->host, name);
  }
  s->wish = SCALE_FACTOR;
  if (config.size == 0) return CHIMERA_OK;
  if (config.size == 1 && config.data_borrowed[0] == 'i') { /* for the self-test to refuse */
    s->wish = HUGE_VALF;
    return CHIMERA_OK;
  }
  if (config.size != 1 || config.data_borrowed[0] < '0' || config.data_borrowed[0] > '9') {
    return fail(s, CHIMERA_INVALID_ARGUMENT, "config: found something else (expected one digit)");
  }
  s->wish = (float)(config.data_borrowed[0] - '0');
  return CHIMERA_OK;
}

static int32_t activate(chimera_expert* self, const chimera_expert_limits* limits) {
  scale* s = self->plugin_data_owned;
  if (limits->max_rows > kMaxRows) return CHIMERA_INVALID_ARGUMENT;
  s->factor = s->memory->allocate(s->host, 1 << 16, 0, 0);
  if (s->factor == NULL) return fail(s, CHIMERA_RESOURCE_EXHAUSTED, "no memory for the factor");
  *s->factor = s->wish;
  return CHIMERA_OK;
}

typedef struct job {
  const chimera_expert_batch* batch;
  float factor;
} job;

static void one_row(void* context, uint32_t row, uint32_t worker) {
  const job* j = context;
  const chimera_expert_batch* b = j->batch;
  const float* x = (const float*)((const char*)b->x_borrowed + row * b->x_stride);
  float* y = (float*)((char*)b->y_borrowed + row * b->y_stride);
  /* Through this worker's scratch, so that a shared one would show. */
  float* scratch = (float*)((char*)b->scratch_borrowed + worker * b->scratch_stride);
  for (int i = 0; i < kModel; ++i) scratch[i] = j->factor * x[i];
  for (int i = 0; i < kModel; ++i) y[i] = scratch[i];
}

static int32_t forward(chimera_expert* self, const chimera_expert_batch* batch) {
  scale* s = self->plugin_data_owned;
  if (batch->n_rows > kMaxRows || batch->layer > 1 || batch->expert > 1) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  const job j = {batch, *s->factor * (float)(batch->layer + 1) * (float)(batch->expert + 2)};
  if (s->parallel == NULL ||
      s->parallel->run(s->host, batch->n_rows, one_row, (void*)&j) != CHIMERA_OK) {
    for (uint32_t row = 0; row < batch->n_rows; ++row) one_row((void*)&j, row, 0);
  }
  if (s->metrics != NULL) s->metrics->add(s->host, s->rows, batch->n_rows);
  return CHIMERA_OK;
}

static int32_t reset(chimera_expert* self) {
  (void)self;
  return CHIMERA_OK;
}

static void deactivate(chimera_expert* self) {
  scale* s = self->plugin_data_owned;
  s->memory->release(s->host, s->factor);
  s->factor = NULL;
}

static void destroy(chimera_expert* self_owned) {
  scale* s = self_owned->plugin_data_owned;
  s->used = 0;
}

static const void* get_extension(chimera_expert* self, const char* extension_id_borrowed) {
  (void)self;
  (void)extension_id_borrowed;
  return NULL;
}

static uint32_t count(void) { return 1; }

static const chimera_expert_descriptor* descriptor(uint32_t index) {
  return index == 0 ? &kDescriptor : NULL;
}

static chimera_expert* create(const char* plugin_id_borrowed, const chimera_host* host_borrowed) {
  if (strcmp(plugin_id_borrowed, SCALE_ID) != 0) return NULL;
  for (int i = 0; i < kMaxInstances; ++i) {
    scale* s = &g_instances[i];
    if (s->used) continue;
    memset(s, 0, sizeof(*s));
    s->used = 1;
    s->host = host_borrowed;
    s->expert = (chimera_expert){sizeof(chimera_expert),
                                 0,
                                 &kDescriptor,
                                 s,
                                 prepare,
                                 activate,
                                 forward,
                                 reset,
                                 deactivate,
                                 destroy,
                                 get_extension};
    return &s->expert;
  }
  return NULL;
}

static const chimera_expert_factory kFactory = {sizeof(chimera_expert_factory), 0, count,
                                                descriptor, create};

static int32_t init(const chimera_init_info* info_borrowed) {
  return info_borrowed->abi_major == CHIMERA_ABI_MAJOR ? CHIMERA_OK : CHIMERA_FAILED_PRECONDITION;
}

static void deinit(void) {}

static const void* get_factory(const char* factory_id_borrowed) {
  return strcmp(factory_id_borrowed, CHIMERA_EXPERT_FACTORY_ID) == 0 ? &kFactory : NULL;
}

CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = {CHIMERA_EXPERT_MAGIC,
                                                                     sizeof(chimera_expert_entry),
                                                                     CHIMERA_ABI_MAJOR,
                                                                     CHIMERA_ABI_MINOR,
                                                                     0,
                                                                     0,
                                                                     SCALE_FLAGS,
                                                                     init,
                                                                     deinit,
                                                                     get_factory};
