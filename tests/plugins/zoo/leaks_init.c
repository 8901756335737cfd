/* Every init takes a kilobyte of the heap, which deinit does not give back. */
#include <stdlib.h>
#include "chimera/status_code.h"
static void* volatile zoo_taken;
#define ZOO_ON_INIT() ((zoo_taken = malloc(1000)) != NULL ? CHIMERA_OK : CHIMERA_RESOURCE_EXHAUSTED)
#include "zoo.h"
