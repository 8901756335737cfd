#include "check/process_state.h"

#include <immintrin.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/threads/live_threads.h"
#include "check/watch.h"

namespace chimera::check {
namespace {

namespace fs = std::filesystem;

void add_threads(ProcessState& s) {
  for (const LiveThread& t : live_threads()) s["thread " + std::to_string(t.id)] = "";
}

void add_descriptors(ProcessState& s) {
  std::error_code error;
  for (const auto& e : fs::directory_iterator("/proc/self/fd", error)) {
    const std::string target = fs::read_symlink(e.path(), error).string();
    // The descriptor that this loop itself reads from.
    if (error || target.find("/proc/") == 0) continue;
    s["descriptor " + e.path().filename().string()] = target;
  }
}

void add_signals(ProcessState& s) {
  for (int n = 1; n < NSIG; ++n) {
    struct sigaction action = {};
    if (sigaction(n, nullptr, &action) != 0) continue;
    s[fmt::format("handler of signal {}", n)] =
        fmt::format("{:#x}", reinterpret_cast<uintptr_t>(action.sa_sigaction));
  }
  sigset_t mask;
  sigemptyset(&mask);
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  std::string blocked;
  for (int n = 1; n < NSIG; ++n) blocked += sigismember(&mask, n) == 1 ? fmt::format("{} ", n) : "";
  s["blocked signals"] = blocked;
}

void add_timers(ProcessState& s) {
  std::ifstream timers("/proc/self/timers");
  for (std::string line; std::getline(timers, line);) {
    if (line.compare(0, 3, "ID:") == 0) s["timer " + line.substr(4)] = "";
  }
  for (const auto& [which, name] :
       {std::pair{ITIMER_REAL, "real"}, std::pair{ITIMER_VIRTUAL, "virtual"},
        std::pair{ITIMER_PROF, "profiling"}}) {
    itimerval value = {};
    getitimer(which, &value);
    const bool armed = value.it_value.tv_sec != 0 || value.it_value.tv_usec != 0;
    s[fmt::format("{} interval timer", name)] = armed ? "armed" : "idle";
  }
}

void add_floating_point(ProcessState& s) {
  uint16_t control = 0;
  asm volatile("fnstcw %0" : "=m"(control));
  s["MXCSR"] = fmt::format("{:#x}", _mm_getcsr() & 0xffc0u);
  s["x87 control word"] = fmt::format("{:#x}", control);
}

}  // namespace

ProcessState process_state(int output_fd) {
  ProcessState s;
  add_threads(s);
  add_descriptors(s);
  add_signals(s);
  add_timers(s);
  add_floating_point(s);
  for (char** e = environ; e != nullptr && *e != nullptr; ++e) {
    const char* equals = std::strchr(*e, '=');
    if (equals == nullptr) continue;
    s["environment variable " + std::string(*e, static_cast<size_t>(equals - *e))] = equals + 1;
  }
  std::error_code error;
  s["working directory"] = fs::current_path(error).string();
  const char* locale = std::setlocale(LC_ALL, nullptr);
  s["locale"] = locale != nullptr ? locale : "";
  const mode_t mask = umask(0);
  umask(mask);
  s["umask"] = fmt::format("{:03o}", mask);
  struct stat output = {};
  fstat(output_fd, &output);
  s["bytes printed"] = std::to_string(output.st_size);
  return s;
}

std::string state_difference(const ProcessState& before, int output_fd) {
  std::string out;
  for (int attempt = 0; attempt < 50; ++attempt) {
    out.clear();
    const auto add = [&](const std::string& text) { out += (out.empty() ? "" : "; ") + text; };
    const ProcessState after = process_state(output_fd);
    for (const auto& [key, value] : before) {
      const auto it = after.find(key);
      if (it == after.end()) {
        add(key + " is gone");
      } else if (it->second != value) {
        add(fmt::format("{}: \"{}\" became \"{}\"", key, value, it->second));
      }
    }
    for (const auto& [key, value] : after) {
      if (before.count(key) == 0)
        add(fmt::format("new {}{}{}", key, value.empty() ? "" : ": ", value));
    }
    if (out.find("new thread") == std::string::npos) break;
    usleep(10000);
  }
  return out;
}

MemoryUse memory_use() {
  MemoryUse use;
  use.heap_bytes = live_heap_bytes();
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream(line) >> std::hex >> begin >> dash >> end;
    use.mapped_bytes += end - begin;
    ++use.mappings;
  }
  std::error_code error;
  const auto count = [&](const char* dir) {
    uint64_t n = 0;
    for (auto it = fs::directory_iterator(dir, error); it != fs::directory_iterator(); ++it) ++n;
    return n;
  };
  use.descriptors = count("/proc/self/fd");
  use.threads = live_threads().size();
  return use;
}

std::string growth(const MemoryUse& before, const MemoryUse& after, uint64_t rounds) {
  // Less than this per round is the checker's own bookkeeping, not a leak of the smallest block.
  const uint64_t bytes = 8 * rounds;
  std::string out;
  const auto more = [&](const char* what, uint64_t a, uint64_t b, uint64_t allowed) {
    if (b > a + allowed) {
      out += fmt::format("{}{} grew from {} to {} in {} rounds", out.empty() ? "" : "; ", what, a,
                         b, rounds);
    }
  };
  more("the heap", before.heap_bytes, after.heap_bytes, bytes);
  more("mapped memory", before.mapped_bytes, after.mapped_bytes,
       std::max<uint64_t>(2048 * rounds, 1 << 20));
  more("the number of mappings", before.mappings, after.mappings,
       std::max<uint64_t>(rounds / 4, 8));
  more("the number of descriptors", before.descriptors, after.descriptors, 0);
  more("the number of threads", before.threads, after.threads, 0);
  return out;
}

}  // namespace chimera::check
