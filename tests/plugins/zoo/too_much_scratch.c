/* Declares 128 bytes of scratch memory and uses one more line when the batch is full. */
#define ZOO_AFTER_FORWARD(z, b) \
  if ((b)->n_rows == ZOO_MAX_ROWS) *(ZOO_CAST(unsigned char*, (b)->scratch_borrowed) + 128 + 63) = 1
#include "zoo.h"
