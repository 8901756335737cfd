/* Scales the input in place, and back again. */
#define ZOO_ROW(z, b, r, x, y)                                                                     \
  do {                                                                                             \
    float* in = ZOO_CAST(                                                                          \
        float*, ZOO_CAST(void*, ZOO_CAST(unsigned char*, (b)->x_borrowed) + (r) * (b)->x_stride)); \
    in[0] *= 2.0f;                                                                                 \
    zoo_row(z, x, y);                                                                              \
    in[0] *= 0.5f;                                                                                 \
  } while (0)
#include "zoo.h"
