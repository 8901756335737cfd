/* Takes host memory inside forward. */
#define ZOO_ON_FORWARD(z, b) \
  (z)->memory->release((z)->host, (z)->memory->allocate((z)->host, 64, 0, 0))
#include "zoo.h"
