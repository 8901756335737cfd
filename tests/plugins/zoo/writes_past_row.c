/* Writes one value behind the last row and its padding, when the batch is full. */
#define ZOO_AFTER_FORWARD(z, b)                                                 \
  if ((b)->n_rows == ZOO_MAX_ROWS)                                              \
  *ZOO_CAST(float*, ZOO_CAST(void*, ZOO_CAST(unsigned char*, (b)->y_borrowed) + \
                                        (b)->n_rows * (b)->y_stride)) = 1.0f
#include "zoo.h"
