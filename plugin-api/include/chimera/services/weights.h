/* chimera.weights/1: the tensors of the module's .safetensors files.
 *
 * Files listed in module.yaml, their digests compared, bounds checked by the host. The gate rows
 * (the file named as library.gate) are not among them: routing is the host's. */
#ifndef CHIMERA_SERVICES_WEIGHTS_H_
#define CHIMERA_SERVICES_WEIGHTS_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_WEIGHTS_ID "chimera.weights/1"

#define CHIMERA_TENSOR_MAX_RANK 8

typedef struct chimera_tensor {
  uint32_t struct_size;
  uint32_t dtype; /* CHIMERA_DTYPE_* */
  uint32_t rank;  /* 0 .. CHIMERA_TENSOR_MAX_RANK */
  uint32_t reserved;
  uint64_t shape[CHIMERA_TENSOR_MAX_RANK]; /* row-major; 0 beyond rank */
  const void* data_borrowed; /* byte_size bytes, aligned to the dtype; read-only; valid until
                                deactivate returns (from activate), or until prepare returns */
  uint64_t byte_size;
  chimera_text name; /* valid as long as data */
} chimera_tensor;

typedef struct chimera_host_weights {
  uint32_t struct_size;
  uint32_t reserved;
  /* Number of tensors. [control & built, idle, active] */
  uint64_t (*count)(const chimera_host* host);
  /* Tensor `index` in order of name. The caller sets out->struct_size; the host fills what it
   * covers. CHIMERA_NOT_FOUND when out of range. [control & built, idle, active] */
  int32_t (*at)(const chimera_host* host, uint64_t index, chimera_tensor* out);
  /* The tensor with this name, or CHIMERA_NOT_FOUND; CHIMERA_UNIMPLEMENTED for a dtype without a
   * number. [control & built, idle, active] */
  int32_t (*find)(const chimera_host* host, chimera_text name, chimera_tensor* out);
} chimera_host_weights;

CHIMERA_FROZEN_SIZE(chimera_tensor, 112);
CHIMERA_FROZEN_OFFSET(chimera_tensor, shape, 16);
CHIMERA_FROZEN_OFFSET(chimera_tensor, data_borrowed, 80);
CHIMERA_FROZEN_OFFSET(chimera_tensor, name, 96);
CHIMERA_FROZEN_SIZE(chimera_host_weights, 32);
CHIMERA_FROZEN_OFFSET(chimera_host_weights, find, 24);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_WEIGHTS_H_ */
