/* chimera.matmul/1: the host's matrix kernels, the fastest it has for this machine.
 *
 * y = x W^T. Pack once in activate, multiply in forward. An output element depends on its row of x
 * and its row of W alone, bitwise, whatever the batch, the range or the workers. */
#ifndef CHIMERA_SERVICES_MATMUL_H_
#define CHIMERA_SERVICES_MATMUL_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_MATMUL_ID "chimera.matmul/1"

/* A matrix in the host's own layout. Belongs to the instance that packed it. */
typedef struct chimera_packed_matrix chimera_packed_matrix;

/* W [rows, cols], row-major. */
typedef struct chimera_matrix_source {
  uint32_t struct_size;
  uint32_t dtype;               /* F32, BF16 or I8 */
  uint64_t rows;                /* outputs */
  uint64_t cols;                /* inputs */
  uint64_t row_stride;          /* bytes from row to row */
  const void* data_borrowed;    /* for the call */
  const float* scales_borrowed; /* I8: [rows], W[i][j] = scales[i] * data[i][j]; else null */
} chimera_matrix_source;

typedef struct chimera_host_matmul {
  uint32_t struct_size;
  uint32_t reserved;
  /* Copies W into the host's layout. *out_owned is released with `release`, at the latest in
   * destroy. Accounted like chimera.memory/1. CHIMERA_UNIMPLEMENTED for a dtype the host cannot
   * multiply. [control & idle, active] */
  int32_t (*pack)(const chimera_host* host, const chimera_matrix_source* source_borrowed,
                  chimera_packed_matrix** out_owned);
  /* [control & idle, active] */
  void (*release)(const chimera_host* host, chimera_packed_matrix* matrix_owned);
  /* y[r][i] = sum_j x[r][j] W[i][j] for all r < n_rows and begin <= i < end; x [n_rows, cols] and
   * y [n_rows, rows] F32, strides in bytes and multiples of 4. Runs on the calling thread; split
   * ranges of outputs over chimera.parallel/1. CHIMERA_INVALID_ARGUMENT when the range or a stride
   * does not fit. [worker & active] */
  int32_t (*multiply)(const chimera_host* host, const chimera_packed_matrix* matrix_borrowed,
                      const float* x_borrowed, uint64_t x_stride, uint32_t n_rows, uint64_t begin,
                      uint64_t end, float* y_borrowed, uint64_t y_stride);
  /* gate[i] = gate[i] * sigmoid(gate[i]) * up[i], i < n: SwiGLU (Shazeer 2020, arXiv 2002.05202).
   * [worker & active] */
  void (*swiglu)(const chimera_host* host, float* gate_borrowed, const float* up_borrowed,
                 uint64_t n);
} chimera_host_matmul;

CHIMERA_FROZEN_SIZE(chimera_matrix_source, 48);
CHIMERA_FROZEN_SIZE(chimera_host_matmul, 40);
CHIMERA_FROZEN_OFFSET(chimera_host_matmul, multiply, 24);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_MATMUL_H_ */
