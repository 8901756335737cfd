/* Bound lazily. (Linked with -z lazy.) */
#include "zoo.h"
