/* Every call adds a little more. */
#define ZOO_STATE float drift;
#define ZOO_ON_RESET(z) (z)->drift = 0
#define ZOO_ON_FORWARD(z, b) (z)->drift += 1e-3f
#define ZOO_ROW(z, b, r, x, y) \
  for (int i = 0; i < ZOO_D; ++i) y[i] = ((z)->weights[i] + (z)->drift) * x[i]
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#include "zoo.h"
