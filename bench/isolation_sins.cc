// The sins of `isolation`: from the call that goes wrong to its answer, and to the next good one.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <thread>

#include "experts/isolation/backend.h"
#include "experts/library/backend.h"
#include "isolation.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int64_t kHidden = 16;             // of tests/plugins/runtime/sinner.cc
constexpr float kTrigger = 12345.0f;        // a row that begins with it makes it sin
constexpr int kTimes = 3;                   // below the five that lead to quarantine
constexpr const char* kKilled = "kill -9";  // from outside, while it sleeps
constexpr int64_t kDeadlineMs = 150;        // the default of library.deadline_ms

LibrarySource source_of(const std::string& library, const std::string& sin) {
  std::ifstream file(library, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto view = std::as_bytes(std::span(bytes));
  LibrarySource s;
  Result<ElfNote> note = read_elf_note(view, library);
  if (!note.ok()) throw std::runtime_error(note.status().to_string());
  Result<SealedFile> image = SealedFile::create("sinner", view);
  if (!image.ok()) throw std::runtime_error(image.status().to_string());
  s.module = "sinner";
  s.version = note->version;
  s.note = std::move(*note);
  s.image = std::make_shared<const SealedFile>(std::move(*image));
  s.spec.config = sin;
  s.spec.deadline_ms = kDeadlineMs;
  s.hidden_size = kHidden;
  s.experts = {{0, 1}, {1, 1}};
  return s;
}

/// The plugin host among our children; 0: none.
pid_t host_process() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "stat");
    std::string pid, name, state, parent;
    // The name, cut to 15 characters by the kernel, has no spaces.
    if (!(file >> pid >> name >> state >> parent)) continue;
    if (parent == std::to_string(getpid()) && name.starts_with("(chimera-plugin")) {
      return std::stoi(pid);
    }
  }
  return 0;
}

/// From outside, kDelay after it was made; at() is when.
class Killer {
 public:
  Killer()
      : thread_([this] {
          std::this_thread::sleep_for(kDelay);
          const pid_t host = host_process();
          at_ = now_s();
          if (host > 0) kill(host, SIGKILL);
        }) {}
  ~Killer() { thread_.join(); }
  double at() const { return at_; }

 private:
  static constexpr std::chrono::milliseconds kDelay{10};
  std::atomic<double> at_{0};
  std::thread thread_;
};

/// One call that sins; when it began, or when its process was killed.
double sin_once(LibraryBackend& backend, bool killed, const float* x, float* y,
                ExpertContext& context, Status* status) {
  std::optional<Killer> killer;
  const double start = now_s();
  if (killed) killer.emplace();
  *status = backend.forward(0, 0, x, 1, y, context);
  return killed ? killer->at() : start;
}

void measure(const std::string& library, const std::string& sin) {
  LibraryRuntime::Options options;
  options.worker_count = 1;
  const bool killed = sin == kKilled;
  auto backend = open_isolated(source_of(library, killed ? "sleep" : sin),
                               std::make_shared<LibraryRuntime>(std::move(options)));
  if (!backend.ok()) throw std::runtime_error(backend.status().to_string());
  ThreadPool pool(1);
  FloatBuffer scratch;
  std::vector<float> x(kHidden, 1.0f), y(kHidden);
  ExpertContext context{best_kernels(), pool, scratch};
  std::vector<double> answered, again;
  std::string how;
  for (int i = 0; i < kTimes; ++i) {
    x[0] = kTrigger;
    Status status;
    const double start = sin_once(**backend, killed, x.data(), y.data(), context, &status);
    answered.push_back(1e3 * (now_s() - start));
    how = status.ok() ? "ok" : status.message();
    x[0] = 1.0f;
    while (!(*backend)->forward(0, 0, x.data(), 1, y.data(), context).ok()) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    again.push_back(1e3 * (now_s() - start));
  }
  fmt::print("{:<14}{:>10.2f}{:>10.2f}{:>12.1f}{:>10.1f}  {}\n", sin, quantile(answered, 0.5),
             quantile(answered, 1.0), quantile(again, 0.5), quantile(again, 1.0), how);
}

}  // namespace

void sins(const std::string& library) {
  fmt::print("\nsins, ms (deadline {} ms; {} times each, back-off 100, 200, 400 ms)\n", kDeadlineMs,
             kTimes);
  fmt::print("{:<14}{:>10}{:>10}{:>12}{:>10}  answer\n", "", "answered", "max", "serves again",
             "max");
  for (const char* sin :
       {"segfault", "abort", "exit", kKilled, "spin", "sleep", "deadlock", "flood", "write_past",
        "write_before", "scribble", "nan", "internal", "invalid", "gives_up", "write_socket"}) {
    measure(library, sin);
  }
}

}  // namespace chimera::bench
