/* Keeps what activate made in a variable of the thread that called it. */
static _Thread_local float* zoo_here;
#define ZOO_ROW(z, b, r, x, y) \
  for (int i = 0; i < ZOO_D; ++i) y[i] = (zoo_here ? zoo_here[i] : 0.0f) * x[i] + x[(i + 1) % ZOO_D]
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#define ZOO_ON_FORWARD(z, b) \
  if (zoo_here == NULL) zoo_here = zoo_activated_here
static _Thread_local float* zoo_activated_here;
#define ZOO_ON_PREPARE(z, config) zoo_activated_here = zoo_table, zoo_table[0] = 1.0f
static float zoo_table[64];
#include "zoo.h"
