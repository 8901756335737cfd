/* Gives its factory for any id. */
#define ZOO_IS_FACTORY(id) ((id) != NULL)
#include "zoo.h"
