/* Asks the kernel for its process id in every call. */
#include <sys/syscall.h>
#include <unistd.h>
extern long syscall(long, ...);
#define ZOO_ON_FORWARD(z, b) (void)syscall(SYS_getppid)
#include "zoo.h"
