/* Looks for libraries in /opt. (Linked with -rpath.) */
#include "zoo.h"
