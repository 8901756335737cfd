/* A full batch takes long, and nothing can stop it. */
#include <time.h>
static volatile unsigned long zoo_spun;
#define ZOO_MAX_ROWS 4096
#define ZOO_ON_FORWARD(z, b)                                                                      \
  for (unsigned long i = 0; (b)->n_rows == (z)->max_rows && (b)->n_rows > 512 && i < 100000000ul; \
       ++i)                                                                                       \
  zoo_spun = i
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#include "zoo.h"
