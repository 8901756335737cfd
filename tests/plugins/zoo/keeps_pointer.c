/* Looks into the batch before when the next one comes. */
#define ZOO_STATE      \
  const float* before; \
  float sum;
#define ZOO_ON_FORWARD(z, b)                           \
  if ((z)->before != NULL) (z)->sum += (z)->before[0]; \
  if ((b)->n_rows > 0) (z)->before = ZOO_CAST(const float*, (b)->x_borrowed)
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#include "zoo.h"
