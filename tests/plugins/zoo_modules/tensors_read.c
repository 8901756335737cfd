/* Keeps the contract; its weights are tensors of the module. */
#define ZOO_TENSOR_WRONG                                                                       \
  status != CHIMERA_OK || t.dtype != CHIMERA_DTYPE_F32 || t.rank != 2 || t.shape[0] != rows || \
      t.shape[1] != cols
#include "tensors.h"
