/* Adds to the output instead of overwriting it. */
#define ZOO_ROW(z, b, r, x, y) \
  for (int i = 0; i < ZOO_D; ++i) y[i] += (z)->weights[i] * x[i]
#include "zoo.h"
