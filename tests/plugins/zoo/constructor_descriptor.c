/* A constructor opens a file and leaves it open. */
#include <fcntl.h>
#define ZOO_FLAGS 0
#include "zoo.h"
static int left_open;
__attribute__((constructor)) static void start(void) { left_open = open("/dev/null", O_RDONLY); }
