/* Handles a signal from init on and does not give it back. */
#include <signal.h>
#include "chimera/status_code.h"
static void zoo_handler(int number) { (void)number; }
#define ZOO_ON_INIT() (signal(SIGUSR2, zoo_handler) != SIG_ERR ? CHIMERA_OK : CHIMERA_UNAVAILABLE)
#define ZOO_FLAGS 0
#include "zoo.h"
