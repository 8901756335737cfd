/* A plugin with the weights of a SwiGLU expert in the module's tensors, as the template has them:
 * y = down (silu(gate x) * up x), three experts of inner length 8. Hook: ZOO_TENSOR_WRONG. */
#include <math.h>
#include <stdio.h>

#include "chimera/services.h"

#define ZOO_INNER 8
#define ZOO_REQUIRED CHIMERA_MEMORY_ID, CHIMERA_WEIGHTS_ID
#define ZOO_SCRATCH 64
#define ZOO_STATE                      \
  const chimera_host_weights* tensors; \
  const float* w[3][3];
#define ZOO_ON_PREPARE(z, config)                                                         \
  (z)->tensors =                                                                          \
      (const chimera_host_weights*)(z)->host->get_service((z)->host, CHIMERA_WEIGHTS_ID); \
  if ((z)->tensors == NULL) return CHIMERA_FAILED_PRECONDITION
#define ZOO_ON_ACTIVATE(z)                                            \
  do {                                                                \
    const int32_t status = zoo_find((z)->host, (z)->tensors, (z)->w); \
    if (status != CHIMERA_OK) return status;                          \
  } while (0)
#define ZOO_ROW(z, b, r, x, y) \
  zoo_swiglu((z)->w[(b)->layer == 3 ? 2 : (b)->expert], (float*)(b)->scratch_borrowed, x, y)

#define ZOO_ROWS 20

static int32_t zoo_find(const chimera_host* host, const chimera_host_weights* tensors,
                        const float* w[3][3]) {
  static const char* const names[] = {"gate", "up", "down"};
  static const char* const experts[] = {"layers.0.experts.0", "layers.0.experts.1",
                                        "layers.3.experts.0"};
  for (int e = 0; e < 3; ++e) {
    for (int n = 0; n < 3; ++n) {
      char name[64];
      const int size = snprintf(name, sizeof(name), "%s.%s_proj.weight", experts[e], names[n]);
      const chimera_text text = {name, (uint64_t)size};
      chimera_tensor t = {sizeof(chimera_tensor)};
      const int32_t status = tensors->find(host, text, &t);
      const uint64_t rows = n == 2 ? ZOO_ROWS : ZOO_INNER, cols = n == 2 ? ZOO_INNER : ZOO_ROWS;
      if (ZOO_TENSOR_WRONG) return status != CHIMERA_OK ? status : CHIMERA_DATA_CORRUPT;
      w[e][n] = (const float*)t.data_borrowed;
      (void)rows;
      (void)cols;
    }
  }
  return CHIMERA_OK;
}

static void zoo_swiglu(const float* const* w, float* hidden, const float* x, float* y) {
  for (int i = 0; i < ZOO_INNER; ++i) {
    float gate = 0, up = 0;
    for (int j = 0; j < ZOO_ROWS; ++j) {
      gate += w[0][i * ZOO_ROWS + j] * x[j];
      up += w[1][i * ZOO_ROWS + j] * x[j];
    }
    hidden[i] = gate / (1.0f + expf(-gate)) * up;
  }
  for (int j = 0; j < ZOO_ROWS; ++j) {
    float sum = 0;
    for (int i = 0; i < ZOO_INNER; ++i) sum += w[2][j * ZOO_INNER + i] * hidden[i];
    y[j] = sum;
  }
}

#include "../zoo/zoo.h"
