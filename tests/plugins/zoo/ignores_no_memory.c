/* Does not look whether it got the memory. */
#define ZOO_NO_MEMORY(z) (void)0
#include "zoo.h"
