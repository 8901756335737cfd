/* Registers a function to be called when the process ends. */
#include <stdlib.h>
#include "chimera/status_code.h"
static void zoo_goodbye(void) {}
#define ZOO_ON_INIT() (atexit(zoo_goodbye) == 0 ? CHIMERA_OK : CHIMERA_UNAVAILABLE)
#include "zoo.h"
