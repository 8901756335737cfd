/* The note names another plugin. */
#define ZOO_NOTE CHIMERA_EXPERT_NOTE("org.chimera.other", "1.0.0", "zoo")
#include "zoo.h"
