/* Takes whatever it finds under a name for the tensor it expects. */
#define ZOO_TENSOR_WRONG status != CHIMERA_OK
#include "tensors.h"
