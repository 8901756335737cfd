/* Takes the configuration for a NUL-terminated text. */
#define ZOO_ON_PREPARE(z, config) \
  if (strlen((config).data_borrowed) > 100000000u) return CHIMERA_INVALID_ARGUMENT
#include "zoo.h"
