// load: what a checkpoint costs to open.
//
//   ready      process start to the first answered health call, ms, with an empty state directory:
//              the backbone's fingerprint, cached later, is made in this time
//   memory     at its highest until then, against the size of the checkpoint: `own` is anonymous
//              (what the daemon allocated and the system cannot take back), `mapped` is file pages
//              it touched, which stay the page cache's
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

Start start(const DeploymentOptions& options) {
  const DaemonProcess daemon(options);
  Session session(daemon);
  Start s;
  s.ready_ms = 1e3 * (session.wait_ready(kLoadedSeconds) - daemon.started_at());
  s.own = status_bytes(daemon.pid(), "RssAnon");
  s.mapped = status_bytes(daemon.pid(), "RssFile");
  s.peak = status_bytes(daemon.pid(), "VmHWM");
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
  if (const auto exit = parse(daemon_options(options), args)) return *exit;
  try {
    const uint64_t size = read_weights(options.backbone);
    if (size == 0)
      throw std::runtime_error(fmt::format("{}: no .safetensors files", options.backbone));
    std::vector<Start> starts;
    while (starts.size() < kColdStarts) starts.push_back(start(options));
    print(starts, size);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: load: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
