/* Needs a library that hosts need not have. (Linked with -lz.) */
extern const char* zlibVersion(void);
#define ZOO_ON_INIT() (zlibVersion() != NULL ? CHIMERA_OK : CHIMERA_UNAVAILABLE)
#include "zoo.h"
