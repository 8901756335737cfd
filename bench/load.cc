// load: what a checkpoint costs to open.
//
//   ready      process start to the first answered health call, ms, with an empty state directory:
//              the backbone's fingerprint, cached later, is made in this time
//   memory     at its highest until then, against the size of the checkpoint: `own` is anonymous
//              (what the daemon allocated and the system cannot take back), `mapped` is file pages
//              it touched, which stay the page cache's
//   --hot DIR  a module in the page cache, in each of these daemons: from `load` to the first token
//              on the new epoch, the first time and once more when the daemon knows its bytes.
//              Beside it, in the same round, what these bytes cost at least: reading them once,
//              SHA-256 over them on all CPUs, which a load owes before it may use them, and as much
//              fresh memory, as it copies them. In a virtual machine whose host has to find that
//              memory first, this may be most of a load; the CPU time of the daemon says how it
//              would be elsewhere
//
// The files are read once beforehand, so that starts measure the daemon and not the disk.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bench.h"
#include "hot_load.h"
#include "options.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kColdStarts = 5;
constexpr double kLoadedSeconds = 600.0;

/// Bytes of the safetensors files of a directory, each read once into the page cache.
uint64_t read_weights(const std::string& directory) {
  std::vector<char> buffer(size_t{4} << 20);
  uint64_t bytes = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) ||
           file.gcount() > 0)
      bytes += static_cast<uint64_t>(file.gcount());
  }
  return bytes;
}

/// A field of /proc/PID/status in bytes.
uint64_t status_bytes(pid_t pid, const std::string& field) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  std::string name;
  uint64_t kib = 0;
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field + ":")) kib = std::stoull(line.substr(field.size() + 1));
  return kib * 1024;
}

struct Start {
  double ready_ms = 0;
  uint64_t own = 0;     // bytes
  uint64_t mapped = 0;  // bytes
  uint64_t peak = 0;    // bytes, of both together
};

/// `module`: to be loaded afterwards; "": none.
Start start(const DeploymentOptions& options, const std::string& module,
            std::vector<HotLoad>* hot) {
  const DaemonProcess daemon(options);
  Session session(daemon);
  Start s;
  s.ready_ms = 1e3 * (session.wait_ready(kLoadedSeconds) - daemon.started_at());
  s.own = status_bytes(daemon.pid(), "RssAnon");
  s.mapped = status_bytes(daemon.pid(), "RssFile");
  s.peak = status_bytes(daemon.pid(), "VmHWM");
  if (!module.empty()) hot->push_back(hot_load(session, daemon, module));
  return s;
}

void print(const std::vector<Start>& starts, uint64_t size) {
  const auto mb = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  uint64_t own = 0, mapped = 0, peak = 0;
  std::vector<double> ready_ms;
  for (const Start& s : starts) {
    own = std::max(own, s.own);
    mapped = std::max(mapped, s.mapped);
    peak = std::max(peak, s.peak);
    ready_ms.push_back(s.ready_ms);
  }
  const Spread ready = spread(ready_ms);
  fmt::print("checkpoint     {:>10.1f} MB\n", mb(size));
  fmt::print("ready          {:>10.1f} ms   ({:.1f} to {:.1f} in {} starts)\n", ready.median,
             ready.min, ready.max, starts.size());
  fmt::print("memory, own    {:>10.1f} MB\n", mb(own));
  fmt::print("memory, mapped {:>10.1f} MB\n", mb(mapped));
  fmt::print("memory, peak   {:>10.1f} MB   {:.3f} x checkpoint (goal 1.1)\n", mb(peak),
             static_cast<double>(peak) / static_cast<double>(size));
}

}  // namespace

int run_load(const std::vector<std::string>& args) {
  DeploymentOptions options;
  options.max_sequences = 1;
  std::string module;
  auto description = daemon_options(options);
  description.add_options()("hot", boost::program_options::value(&module),
                            "module directory to load into each daemon");
  if (const auto exit = parse(description, args)) return *exit;
  if (!module.empty()) module = fs::absolute(module).string();
  try {
    const uint64_t size = read_weights(options.backbone);
    if (size == 0)
      throw std::runtime_error(fmt::format("{}: no .safetensors files", options.backbone));
    std::vector<Start> starts;
    std::vector<HotLoad> hot;
    while (starts.size() < kColdStarts) starts.push_back(start(options, module, &hot));
    print(starts, size);
    if (!hot.empty()) print_hot_loads(hot);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: load: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
