// chimera-plugin-host: one library module in a process of its own. Started by chimerad, which talks
// to it over a socket and shared memory; of no use by hand.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/standard_output.h"
#include "base/version.h"
#include "experts/isolation/server.h"

namespace {

constexpr const char* kHelp =
    R"(Usage: chimera-plugin-host --parent PID | --help | --version

Runs the code of one library module for chimerad, which starts it for every
module with `isolation: process` (the default) and hands it the library, its
tensors and shared memory over descriptor 3. It takes nothing else: no files,
no environment, no arguments of the module.

Before the library is loaded it gives up new privileges, core dumps,
descriptors, and - where the kernel has them - all of the file system but the
library directories (Landlock) and system calls that loading does not need
(seccomp); after that also capabilities, opening files, executable memory, new
threads and processes. `chimera modules` shows what is in force.

It ends with chimerad, when its module is retired, or when its code crashes;
chimerad then restarts it, later and later, and shuts the library out after
five crashes in a minute.
)";

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kHelp, stdout);
    return chimera::finish_output("chimera-plugin-host", 0);
  }
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("chimera-plugin-host %s\n", chimera::version());
    return chimera::finish_output("chimera-plugin-host", 0);
  }
  pid_t parent = 0;
  if (argc == 3 && std::strcmp(argv[1], "--parent") == 0) {
    const std::string_view text = argv[2];
    const auto read = std::from_chars(text.data(), text.data() + text.size(), parent);
    if (read.ec != std::errc() || read.ptr != text.data() + text.size()) parent = 0;
  }
  if (parent <= 0) {
    std::fputs(
        "chimera-plugin-host: found no --parent PID (expected it: chimerad starts this "
        "program). Use `isolation: process` in module.yaml\n",
        stderr);
    return 2;
  }
  return chimera::run_plugin_host(parent);
}
