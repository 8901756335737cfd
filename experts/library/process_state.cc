#include "experts/library/process_state.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/threads/live_threads.h"

namespace chimera {
namespace {

// 15 bytes, the longest name a thread can have.
constexpr char kThreadName[] = "chimera-plug-in";

#if defined(__x86_64__)
constexpr uint32_t kDefaultMxcsr = 0x1f80;  // as the processor starts: all masked, to nearest
uint32_t get_mxcsr() { return _mm_getcsr(); }
void set_mxcsr(uint32_t value) { _mm_setcsr(value); }
// The sticky exception flags change with every inexact operation.
constexpr uint32_t kControlBits = 0xffc0;
#else
constexpr uint32_t kDefaultMxcsr = 0;
uint32_t get_mxcsr() { return 0; }
void set_mxcsr(uint32_t) {}
constexpr uint32_t kControlBits = 0;
#endif

template <class Visit>
void for_each_entry(const char* dir, Visit visit) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(dir), ::closedir);
  if (!open) return;
  while (const dirent* entry = ::readdir(open.get())) {
    if (entry->d_name[0] != '.') visit(entry->d_name, ::dirfd(open.get()));
  }
}

std::vector<std::pair<int, std::string>> open_files() {
  std::vector<std::pair<int, std::string>> files;
  for_each_entry("/proc/self/fd", [&](const char* name, int own) {
    const int fd = std::atoi(name);
    char target[512];
    const ssize_t n =
        ::readlink((std::string("/proc/self/fd/") + name).c_str(), target, sizeof(target));
    if (fd == own || n <= 0) return;
    const std::string_view text(target, static_cast<size_t>(n));
    if (text.starts_with('/') && !text.starts_with("/memfd:")) files.emplace_back(fd, text);
  });
  std::sort(files.begin(), files.end());
  return files;
}

uint64_t environment_hash() {
  uint64_t hash = 0;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    hash = hash * 1099511628211u + std::hash<std::string_view>()(*entry);
  }
  return hash;
}

void (*handler_of(int signal))(int) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 ? action.sa_handler : nullptr;
}

}  // namespace

ProcessState ProcessState::now() {
  ProcessState state;
  for (int s = 1; s <= 64; ++s) state.handlers_[static_cast<size_t>(s)] = handler_of(s);
  state.mxcsr_ = get_mxcsr() & kControlBits;
  state.threads_ = plugin_threads();
  state.files_ = open_files();
  char cwd[4096];
  state.cwd_ = ::getcwd(cwd, sizeof(cwd)) != nullptr ? cwd : "";
  if (const char* locale = std::setlocale(LC_ALL, nullptr)) state.locale_ = locale;
  state.environment_ = environment_hash();
  return state;
}

std::string ProcessState::difference(const ProcessState& before) const {
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
  for (size_t s = 1; s < handlers_.size(); ++s) {
    if (handlers_[s] != before.handlers_[s]) add(fmt::format("the handler of signal {}", s));
  }
  if (mxcsr_ != before.mxcsr_) {
    add(fmt::format("floating-point control {:#x} to {:#x}", before.mxcsr_, mxcsr_));
  }
  if (threads_ > before.threads_) {
    add(fmt::format("{} threads started", threads_ - before.threads_));
  }
  for (const auto& file : files_) {
    if (!std::binary_search(before.files_.begin(), before.files_.end(), file)) {
      add(fmt::format("descriptor {} opened ({})", file.first, file.second));
    }
  }
  if (cwd_ != before.cwd_) add("the working directory");
  if (locale_ != before.locale_) add("the locale");
  if (environment_ != before.environment_) add("the environment");
  return text;
}

std::vector<int> ProcessState::handlers_in(uintptr_t begin, uintptr_t end) {
  std::vector<int> found;
  for (int s = 1; s <= 64; ++s) {
    const auto at = reinterpret_cast<uintptr_t>(handler_of(s));
    if (at >= begin && at < end) found.push_back(s);
  }
  return found;
}

size_t ProcessState::plugin_threads() {
  const pid_t own = ::gettid();
  const std::vector<LiveThread> threads = live_threads();
  return static_cast<size_t>(std::count_if(threads.begin(), threads.end(), [&](const auto& thread) {
    return thread.id != own && thread.name == kThreadName;
  }));
}

ControlCallGuard::ControlCallGuard() : name_{}, mxcsr_(get_mxcsr()) {
  ::prctl(PR_GET_NAME, name_);
  ::prctl(PR_SET_NAME, kThreadName);
  set_mxcsr(kDefaultMxcsr);
}

ControlCallGuard::~ControlCallGuard() {
  ::prctl(PR_SET_NAME, name_);
  set_mxcsr(mxcsr_);
}

FloatingPointGuard::FloatingPointGuard() : mxcsr_(get_mxcsr()) { set_mxcsr(kDefaultMxcsr); }
FloatingPointGuard::~FloatingPointGuard() { set_mxcsr(mxcsr_); }

}  // namespace chimera
