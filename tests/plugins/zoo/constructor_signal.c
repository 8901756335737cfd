/* A constructor installs a signal handler. */
#include <signal.h>
#define ZOO_FLAGS 0
#include "zoo.h"
static void handler(int number) { (void)number; }
__attribute__((constructor)) static void start(void) { signal(SIGUSR2, handler); }
