#include "hot_load.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/io/digest.h"
#include "base/threads/thread_pool.h"
#include "stats.h"

namespace chimera::bench {
namespace {

namespace fs = std::filesystem;

// As SHA-256 reads files: stays inside the second-level cache.
constexpr size_t kHotReadBytes = size_t{256} << 10;

std::vector<fs::path> files_of(const std::string& module) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(module))
    if (entry.is_regular_file() && entry.path().filename() != "module.yaml")
      files.push_back(entry.path());
  if (files.empty()) throw std::runtime_error(fmt::format("{}: holds no files", module));
  return files;
}

uint64_t read_once(const fs::path& path) {
  static std::vector<char> buffer(kHotReadBytes);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error(fmt::format("{}: cannot be opened", path.string()));
  uint64_t bytes = 0;
  for (ssize_t n = 0; (n = ::read(fd, buffer.data(), buffer.size())) > 0;)
    bytes += static_cast<uint64_t>(n);
  ::close(fd);
  return bytes;
}

double ms_of(const std::function<void()>& work) {
  const double start = now_s();
  work();
  return 1e3 * (now_s() - start);
}

/// Calls work(i) for i in [0, n) on all CPUs.
void on_all_cpus(size_t n, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto some = [&] {
    for (size_t i = next++; i < n; i = next++) work(i);
  };
  std::vector<std::jthread> helpers;
  for (int i = 1; i < auto_threads(); ++i) helpers.emplace_back(some);
  some();
}

/// Writes to `bytes` of memory that nobody had before.
void touch(uint64_t bytes) {
  constexpr uint64_t kPiece = uint64_t{32} << 20;
  void* const at =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("no memory");
  ::madvise(at, bytes, MADV_HUGEPAGE);  // as a load asks for
  on_all_cpus((bytes + kPiece - 1) / kPiece, [&](size_t i) {
    const uint64_t begin = i * kPiece;
    std::memset(static_cast<char*>(at) + begin, 1, std::min(kPiece, bytes - begin));
  });
  ::munmap(at, bytes);
}

/// CPU time that a process has had, ms; threads of it that ended included.
double cpu_ms_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;  // state to cmajflt
  double user = 0, system = 0;
  fields >> user >> system;
  return 1e3 * (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::string content_of(const fs::path& path) {
  std::string text(fs::file_size(path), '\0');
  std::ifstream(path, std::ios::binary)
      .read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

/// Loads the module and asks for a token at once.
double to_first_token(Session& daemon, const std::string& module, int64_t vocab,
                      std::string* name) {
  const double start = now_s();
  const Json report = daemon.call(wire::Load{module, {}, {}, {}});
  const auto epoch = report.value("epoch", uint64_t{0});
  double first = 0.0;
  const auto done = daemon.client().generate(
      greedy_request(prompt_of(1, vocab, 1), 1), [&](const client::Token& token) {
        if (token.epoch < epoch) throw std::runtime_error("found a token of an earlier epoch");
        first = now_s();
      });
  if (!done.ok()) fail(done.error());
  for (const auto& change : report["changes"])
    if (change["action"] == "load") *name = change.value("module", "");
  return 1e3 * (first - start);
}

}  // namespace

HotLoad hot_load(Session& session, const DaemonProcess& daemon, const std::string& module) {
  HotLoad round;
  const std::vector<fs::path> files = files_of(module);
  round.files = files.size();
  for (const fs::path& file : files) round.bytes += read_once(file);  // into the page cache
  round.read_ms = ms_of([&] {
    for (const fs::path& file : files) read_once(file);
  });
  {
    std::vector<std::string> contents;
    for (const fs::path& file : files) contents.push_back(content_of(file));
    round.hash_ms = ms_of(
        [&] { on_all_cpus(contents.size(), [&](size_t i) { (void)sha256_of(contents[i]); }); });
  }
  const int64_t vocab = session.vocab();
  std::string name;
  const double before = cpu_ms_of(daemon.pid());
  round.first_ms = to_first_token(session, module, vocab, &name);
  round.cpu_ms = cpu_ms_of(daemon.pid()) - before;
  // While the daemon has what it took, so that this is other memory.
  round.touch_ms = ms_of([&] { touch(round.bytes); });
  session.call(wire::Unload{name});
  round.again_ms = to_first_token(session, module, vocab, &name);
  return round;
}

void print_hot_loads(const std::vector<HotLoad>& rounds) {
  const auto of = [&](const std::function<double(const HotLoad&)>& value) {
    std::vector<double> samples;
    for (const HotLoad& round : rounds) samples.push_back(value(round));
    return spread(samples);
  };
  const auto line = [&](const char* label, double HotLoad::*value) {
    const Spread ms = of([&](const HotLoad& r) { return r.*value; });
    const Spread read = of([&](const HotLoad& r) { return r.*value / r.read_ms; });
    const Spread hash = of([&](const HotLoad& r) { return r.*value / r.hash_ms; });
    fmt::print("{:<14} {:>10.1f} ms   ({:.1f} to {:.1f})   {:.2f} x read, {:.2f} x sha-256\n",
               label, ms.median, ms.min, ms.max, read.median, hash.median);
  };
  fmt::print("module         {:>10.1f} MB   in {} files\n",
             static_cast<double>(rounds.front().bytes) / 1e6, rounds.front().files);
  line("read", &HotLoad::read_ms);
  line("sha-256", &HotLoad::hash_ms);
  line("fresh memory", &HotLoad::touch_ms);
  line("to first token", &HotLoad::first_ms);
  line("daemon's CPU", &HotLoad::cpu_ms);
  line("when known", &HotLoad::again_ms);
}

}  // namespace chimera::bench
