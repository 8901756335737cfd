/* Every instance leaves 100 bytes of the heap. */
#define ZOO_ON_CREATE(host) zoo_leaked = malloc(100)
static void* volatile zoo_leaked;
#include "zoo.h"
