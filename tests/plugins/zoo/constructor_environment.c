/* A constructor changes the environment. */
#include "zoo.h"
extern int setenv(const char*, const char*, int);
__attribute__((constructor)) static void start(void) { setenv("ZOO_WAS_HERE", "yes", 1); }
