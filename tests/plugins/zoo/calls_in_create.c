/* create looks up a service. */
#define ZOO_ON_CREATE(host) (void)(host)->get_service(host, CHIMERA_MEMORY_ID)
#include "zoo.h"
