/* Takes no rows at all, says its descriptor. */
#define ZOO_MAX_ROWS 0
#include "zoo.h"
