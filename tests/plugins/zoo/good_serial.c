/* Keeps the contract; of the serial class, and never unloaded. */
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#define ZOO_FLAGS CHIMERA_ENTRY_KEEP_LOADED
#include "zoo.h"
