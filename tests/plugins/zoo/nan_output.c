/* Divides by the length of the row, also when it is zero. */
#define ZOO_ROW(z, b, r, x, y)                                           \
  do {                                                                   \
    float sum = 0;                                                       \
    for (int i = 0; i < ZOO_D; ++i) sum += x[i] * x[i];                  \
    for (int i = 0; i < ZOO_D; ++i) y[i] = (z)->weights[i] * x[i] / sum; \
  } while (0)
#include "zoo.h"
