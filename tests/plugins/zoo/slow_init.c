/* init takes 110 ms. */
#include <time.h>
#include "chimera/status_code.h"
static int zoo_slow(void) {
  struct timespec pause = {0, 110000000};
  nanosleep(&pause, 0);
  return CHIMERA_OK;
}
#define ZOO_ON_INIT() zoo_slow()
#include "zoo.h"
