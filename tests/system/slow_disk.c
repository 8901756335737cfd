/* Preloaded: fdatasync(), which the record of changes waits for, takes as long as the file that
   CHIMERA_TEST_SHUT names is there. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
  const char* shut = getenv("CHIMERA_TEST_SHUT");
  while (shut != NULL && access(shut, F_OK) == 0) usleep(10000);
  return (int)syscall(SYS_fdatasync, fd);
}
