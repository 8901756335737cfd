/* Crashes in forward. */
static volatile int* volatile zoo_nowhere;
#define ZOO_ON_FORWARD(z, b) *zoo_nowhere = 1
#include "zoo.h"
