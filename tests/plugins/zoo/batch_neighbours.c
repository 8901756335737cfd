/* Scales every row by the first row of its batch. */
#define ZOO_ROW(z, b, r, x, y)    \
  for (int i = 0; i < ZOO_D; ++i) \
  y[i] = (z)->weights[i] * x[i] * (1.0f + 1e-3f * ZOO_CAST(float, (b)->n_rows & 7))
#include "zoo.h"
