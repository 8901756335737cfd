/* A constructor prints. */
#include <stdio.h>
#include <unistd.h>
#include "zoo.h"
__attribute__((constructor)) static void start(void) {
  if (write(1, "hello\n", 6) < 0) perror("zoo");
}
