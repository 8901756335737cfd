/* Ends the process when it is activated. */
#include <stdlib.h>
#define ZOO_ON_ACTIVATE(z) exit(3)
#include "zoo.h"
