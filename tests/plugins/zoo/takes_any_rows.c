/* Does not refuse more rows than its limit. */
#define ZOO_ROWS_TOO_MANY(z, b) 0
#include "zoo.h"
