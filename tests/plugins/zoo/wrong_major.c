/* Compiled against another major version of the ABI. */
#define ZOO_MAJOR 2
#include "zoo.h"
