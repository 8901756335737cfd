/* Claims to be reentrant and computes in a buffer of its own. */
#define ZOO_STATE float volatile buffer[ZOO_D];
#define ZOO_ROW(z, b, r, x, y)                                               \
  do {                                                                       \
    for (int i = 0; i < ZOO_D; ++i) (z)->buffer[i] = x[i];                   \
    for (volatile int spin = 0; spin < 20000; ++spin) {                      \
    }                                                                        \
    for (int i = 0; i < ZOO_D; ++i) y[i] = (z)->weights[i] * (z)->buffer[i]; \
  } while (0)
#include "zoo.h"
