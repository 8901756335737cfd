/* A thread that init started goes on after deinit. */
#include <pthread.h>
#include <unistd.h>
#define ZOO_FLAGS 0
static int zoo_start(void);
#define ZOO_ON_INIT() zoo_start()
#include "zoo.h"
static void* idle(void* nothing) {
  for (;;) pause();
  return nothing;
}
static int zoo_start(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, idle, NULL) != 0) return CHIMERA_UNAVAILABLE;
  pthread_detach(thread);
  return CHIMERA_OK;
}
