/* deactivate does not give back the host's memory until destroy. */
#define ZOO_STATE    \
  float* kept[4096]; \
  uint32_t kept_count;
#define ZOO_ON_DEACTIVATE(z) (z)->kept[(z)->kept_count++ % 4096] = (z)->weights
#define ZOO_ON_DESTROY(z)                                    \
  for (uint32_t k = 0; k < (z)->kept_count && k < 4096; ++k) \
  (z)->memory->release((z)->host, (z)->kept[k])
#include "zoo.h"
