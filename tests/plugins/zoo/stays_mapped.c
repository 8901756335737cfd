/* Claims to be unload-clean and cannot be unloaded. (Linked with -z nodelete.) */
#include "zoo.h"
