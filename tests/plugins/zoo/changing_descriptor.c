/* Describes itself otherwise once it has been activated. */
#define ZOO_DESCRIPTOR static
#define ZOO_ON_ACTIVATE(z) zoo_descriptor.expected_ns_per_row += 1
#include "zoo.h"
