/* A constructor starts a thread. */
#include <pthread.h>
#include <unistd.h>
#define ZOO_FLAGS 0
#include "zoo.h"
static void* idle(void* nothing) {
  for (;;) pause();
  return nothing;
}
__attribute__((constructor)) static void start(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, idle, NULL) == 0) pthread_detach(thread);
}
