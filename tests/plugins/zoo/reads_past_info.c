/* Reads module_dir of an init info that does not cover it. */
#include <stddef.h>
static volatile unsigned long zoo_dir_size;
#define ZOO_ON_INIT() (zoo_dir_size = info->module_dir.size, CHIMERA_OK)
#include "zoo.h"
