// The sins of `isolation`: from the call that goes wrong to its answer, and to the next good one.
#include <fmt/format.h>

#include <fstream>
#include <stdexcept>
#include <thread>

#include "experts/library_backend.h"
#include "isolation.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int64_t kHidden = 16;       // of tests/plugins/runtime/sinner.cc
constexpr float kTrigger = 12345.0f;  // a row that begins with it makes it sin
constexpr int kTimes = 3;             // below the five that lead to quarantine
constexpr int64_t kDeadlineMs = 150;  // the default of library.deadline_ms

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

void measure(const std::string& library, const std::string& sin) {
  LibraryRuntime::Options options;
  options.worker_count = 1;
  auto backend =
      open_isolated(source_of(library, sin), std::make_shared<LibraryRuntime>(std::move(options)));
  if (!backend.ok()) throw std::runtime_error(backend.status().to_string());
  ThreadPool pool(1);
  std::vector<float> scratch, x(kHidden, 1.0f), y(kHidden);
  ExpertContext context{best_kernels(), pool, scratch};
  std::vector<double> answered, again;
  std::string how;
  for (int i = 0; i < kTimes; ++i) {
    x[0] = kTrigger;
    const double start = now_s();
    Status status = (*backend)->forward(0, 0, x.data(), 1, y.data(), context);
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
       {"segfault", "abort", "exit", "spin", "sleep", "deadlock", "flood", "write_past",
        "write_before", "scribble", "nan", "internal", "invalid", "gives_up", "write_socket"}) {
    measure(library, sin);
  }
}

}  // namespace chimera::bench
