#include "base/standard_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace chimera {

void guard_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The wrong way round: reading the stand-in of the input and writing to those of the outputs
    // fail with EBADF, as with the closed descriptor itself. open() takes the lowest free number,
    // which is this one, because those below it are open by now.
    (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

// std::cout is synchronised with stdout, so one error flag tells of both.
bool standard_output_lost() { return std::ferror(stdout) != 0; }

Status flush_standard_output() {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && !standard_output_lost()) return {};
  const std::string why = errno != 0 ? std::strerror(errno) : "not everything was written";
  return {Code::kDataCorrupt, "standard output: " + why + " (expected it to take the answer)",
          "Write to a place that has room"};
}

int finish_output(const char* program, int status) {
  const Status output = flush_standard_output();
  if (output.ok()) return status;
  std::fprintf(stderr, "%s: %s\n", program, output.to_string().c_str());
  return status == 0 ? 1 : status;
}

}  // namespace chimera
