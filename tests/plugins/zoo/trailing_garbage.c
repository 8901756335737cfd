/* Takes ids that only begin with its own. */
#define ZOO_IS_ID(id) (strncmp(id, ZOO_ID, sizeof(ZOO_ID) - 1) == 0)
#include "zoo.h"
