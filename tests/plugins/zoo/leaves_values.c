/* Does not write the last value of a row. */
#define ZOO_ROW(z, b, r, x, y) \
  for (int i = 0; i < ZOO_D - 1; ++i) y[i] = (z)->weights[i] * x[i]
#include "zoo.h"
