/* A complete expert plugin: a SwiGLU network down(silu(gate x) * up x) for layer 5 of a backbone
 * with rows of 256 values. Its three matrices come from weights.safetensors, through the host.
 *
 * To make it yours: change the ids in CMakeLists.txt and module.yaml.in, the descriptor below, and
 * then activate (get your weights into the form you want) and forward (use them). What each
 * function may do and who calls it when stands in chimera/expert.h.
 *
 * Thread safety: REENTRANT - forward only reads the instance and writes to what it is lent. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chimera/expert.h"
#include "chimera/services/cancel.h"
#include "chimera/services/error.h"
#include "chimera/services/log.h"
#include "chimera/services/weights.h"

CHIMERA_EXPERT_NOTE(EXPERT_ID, EXPERT_VERSION, EXPERT_BUILD);

enum { kModel = 256, kWidth = 8, kLayer = 5, kMaxRows = 64 };

/* ---- what the plugin says of itself ---------------------------------------------------------- */

static const chimera_expert_layer kLayers[] = {{kLayer, 1}};
static const chimera_text kDomains[] = {CHIMERA_TEXT("example")};
static const char* const kRequired[] = {CHIMERA_WEIGHTS_ID};
static const char* const kOptional[] = {CHIMERA_ERROR_ID, CHIMERA_LOG_ID, CHIMERA_CANCEL_ID};

static const chimera_expert_descriptor kDescriptor = {
    .struct_size = sizeof(chimera_expert_descriptor),
    .id_borrowed = EXPERT_ID,
    .version = CHIMERA_TEXT(EXPERT_VERSION),
    .vendor = CHIMERA_TEXT("Example"),
    .license = CHIMERA_TEXT("Apache-2.0"),
    .description = CHIMERA_TEXT("A small SwiGLU expert"),
    .domains_borrowed = kDomains,
    .domain_count = sizeof(kDomains) / sizeof(kDomains[0]),
    /* Empty: any backbone with these dimensions. Name yours, "sha256:...", for a trained expert. */
    .backbone_fingerprint = {NULL, 0},
    .d_model = kModel,
    .d_ff = kWidth,
    .layers_borrowed = kLayers,
    .layer_count = sizeof(kLayers) / sizeof(kLayers[0]),
    .input_dtype = CHIMERA_DTYPE_F32,
    .output_dtype = CHIMERA_DTYPE_F32,
    .max_rows = kMaxRows,
    .concurrency = CHIMERA_CONCURRENCY_REENTRANT,
    .determinism = CHIMERA_DETERMINISM_BITWISE,
    .scratch_bytes = kWidth * sizeof(float),
    .required_services_borrowed = kRequired,
    .required_service_count = sizeof(kRequired) / sizeof(kRequired[0]),
    .optional_services_borrowed = kOptional,
    .optional_service_count = sizeof(kOptional) / sizeof(kOptional[0]),
    .expected_ns_per_row = 6000,
};

/* ---- an instance ----------------------------------------------------------------------------- */

typedef struct my_expert {
  chimera_expert expert; /* what the host holds */
  const chimera_host* host;
  const chimera_host_weights* weights;
  const chimera_host_error* error;   /* may be null */
  const chimera_host_cancel* cancel; /* may be null */
  /* Of weights.safetensors; the host's memory, valid while active. */
  const float* gate; /* [kWidth, kModel] */
  const float* up;   /* [kWidth, kModel] */
  const float* down; /* [kModel, kWidth] */
} my_expert;

/* Attaches a text to the status that is being returned. */
static int32_t fail(const my_expert* e, int32_t status, const char* text) {
  if (e->error != NULL) {
    const chimera_text message = {text, strlen(text)};
    e->error->set(e->host, message);
  }
  return status;
}

static int32_t prepare(chimera_expert* self, chimera_text config) {
  my_expert* e = self->plugin_data_owned;
  e->weights = e->host->get_service(e->host, CHIMERA_WEIGHTS_ID);
  e->error = e->host->get_service(e->host, CHIMERA_ERROR_ID);
  e->cancel = e->host->get_service(e->host, CHIMERA_CANCEL_ID);
  if (e->weights == NULL) {
    return fail(e, CHIMERA_FAILED_PRECONDITION, "host: found no service " CHIMERA_WEIGHTS_ID);
  }
  if (config.size != 0) {
    return fail(e, CHIMERA_INVALID_ARGUMENT,
                "library.config: found a text (expected none: there is nothing to set)");
  }
  return CHIMERA_OK;
}

/* The matrix `name` of exactly this shape, or null. */
static const float* matrix(const my_expert* e, const char* name, uint64_t rows, uint64_t cols) {
  const chimera_text text = {name, strlen(name)};
  chimera_tensor tensor;
  memset(&tensor, 0, sizeof(tensor));
  tensor.struct_size = sizeof(tensor);
  if (e->weights->find(e->host, text, &tensor) != CHIMERA_OK) return NULL;
  if (tensor.dtype != CHIMERA_DTYPE_F32 || tensor.rank != 2 || tensor.shape[0] != rows ||
      tensor.shape[1] != cols) {
    return NULL;
  }
  return tensor.data_borrowed;
}

static int32_t activate(chimera_expert* self, const chimera_expert_limits* limits) {
  my_expert* e = self->plugin_data_owned;
  (void)limits; /* forward needs no memory of its own */
  e->gate = matrix(e, "gate_proj", kWidth, kModel);
  e->up = matrix(e, "up_proj", kWidth, kModel);
  e->down = matrix(e, "down_proj", kModel, kWidth);
  if (e->gate == NULL || e->up == NULL || e->down == NULL) {
    return fail(e, CHIMERA_DATA_CORRUPT,
                "weights: found not all of gate_proj and up_proj [8, 256] and down_proj [256, 8] "
                "in F32 (expected them)");
  }
  return CHIMERA_OK;
}

static float dot(const float* a, const float* b, int n) {
  float sum = 0.0f;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

static int32_t forward(chimera_expert* self, const chimera_expert_batch* batch) {
  const my_expert* e = self->plugin_data_owned;
  if (batch->n_rows > kMaxRows || batch->layer != kLayer || batch->expert != 0) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  float* inner = batch->scratch_borrowed; /* worker 0's: [kWidth] */
  for (uint32_t row = 0; row < batch->n_rows; ++row) {
    const float* x = (const float*)((const char*)batch->x_borrowed + row * batch->x_stride);
    float* y = (float*)((char*)batch->y_borrowed + row * batch->y_stride);
    for (int i = 0; i < kWidth; ++i) {
      const float gate = dot(e->gate + i * kModel, x, kModel);
      const float up = dot(e->up + i * kModel, x, kModel);
      inner[i] = gate / (1.0f + expf(-gate)) * up;
    }
    for (int i = 0; i < kModel; ++i) y[i] = dot(e->down + i * kWidth, inner, kWidth);
    if (e->cancel != NULL) {
      const int32_t status = e->cancel->check(e->host, batch);
      if (status != CHIMERA_OK) return status;
    }
  }
  return CHIMERA_OK;
}

static int32_t reset(chimera_expert* self) {
  (void)self; /* nothing is kept from one forward to the next */
  return CHIMERA_OK;
}

static void deactivate(chimera_expert* self) {
  my_expert* e = self->plugin_data_owned;
  e->gate = e->up = e->down = NULL;
}

static void destroy(chimera_expert* self_owned) { free(self_owned->plugin_data_owned); }

static const void* get_extension(chimera_expert* self, const char* extension_id_borrowed) {
  (void)self;
  (void)extension_id_borrowed;
  return NULL;
}

/* ---- the library ----------------------------------------------------------------------------- */

static uint32_t count(void) { return 1; }

static const chimera_expert_descriptor* descriptor(uint32_t index) {
  return index == 0 ? &kDescriptor : NULL;
}

static chimera_expert* create(const char* plugin_id_borrowed, const chimera_host* host_borrowed) {
  if (strcmp(plugin_id_borrowed, kDescriptor.id_borrowed) != 0) return NULL;
  my_expert* e = calloc(1, sizeof(*e));
  if (e == NULL) return NULL;
  e->host = host_borrowed;
  e->expert.struct_size = sizeof(chimera_expert);
  e->expert.descriptor_borrowed = &kDescriptor;
  e->expert.plugin_data_owned = e;
  e->expert.prepare = prepare;
  e->expert.activate = activate;
  e->expert.forward = forward;
  e->expert.reset = reset;
  e->expert.deactivate = deactivate;
  e->expert.destroy = destroy;
  e->expert.get_extension = get_extension;
  return &e->expert;
}

static const chimera_expert_factory kFactory = {
    .struct_size = sizeof(chimera_expert_factory),
    .count = count,
    .descriptor = descriptor,
    .create = create,
};

static int32_t init(const chimera_init_info* info_borrowed) {
  (void)info_borrowed;
  return CHIMERA_OK;
}

static void deinit(void) {}

static const void* get_factory(const char* factory_id_borrowed) {
  return strcmp(factory_id_borrowed, CHIMERA_EXPERT_FACTORY_ID) == 0 ? &kFactory : NULL;
}

CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = {
    .magic = CHIMERA_EXPERT_MAGIC,
    .struct_size = sizeof(chimera_expert_entry),
    .abi_major = CHIMERA_ABI_MAJOR,
    .abi_minor = CHIMERA_ABI_MINOR,
    .required_minor = 0,
    .flags = CHIMERA_ENTRY_UNLOAD_CLEAN,
    .init = init,
    .deinit = deinit,
    .get_factory = get_factory,
};
