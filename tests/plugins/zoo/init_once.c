/* Cannot be initialised a second time. */
static int zoo_inits;
#define ZOO_ON_INIT() (zoo_inits++ == 0 ? CHIMERA_OK : CHIMERA_FAILED_PRECONDITION)
#include "zoo.h"
