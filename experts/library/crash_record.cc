#include "experts/library/crash_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/io/mapping_faults.h"
#include "base/json/writer.h"
#include "experts/library/quarantine.h"

namespace chimera {
namespace {

// What ends a process because of its code.
constexpr int kFatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
// A thread whose stack ran over needs another one for the handler; glibc's least is 2 KiB, and a
// frame with all registers of AVX-512 and AMX takes 11 KiB.
constexpr size_t kHandlerStack = 64u << 10;

// The handler has no other way to reach them.
thread_local const CrashScope* t_scope = nullptr;
struct sigaction previous[NSIG];

/// Text put together without allocating; what does not fit is left out.
class Text {
 public:
  void add(std::string_view text) {
    const size_t n = std::min(text.size(), sizeof(bytes_) - size_);
    memcpy(bytes_ + size_, text.data(), n);
    size_ += n;
  }
  /// At least `digits`, with zeros before.
  void add(uint64_t value, int digits = 1) {
    char reversed[20];
    int n = 0;
    for (; value != 0 || n < digits; value /= 10)
      reversed[n++] = static_cast<char>('0' + value % 10);
    while (n > 0) add({&reversed[--n], 1});
  }
  void write_to(int fd) const {
    for (size_t at = 0; at < size_;) {
      const ssize_t n = ::write(fd, bytes_ + at, size_ - at);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
  }

 private:
  char bytes_[4096];
  size_t size_ = 0;
};

/// RFC 3339. gmtime_r takes a lock that the interrupted code may hold.
void add_time(Text* text) {
  using namespace std::chrono;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const sys_seconds at{seconds(now.tv_sec)};
  const sys_days day = floor<days>(at);
  const year_month_day date(day);
  const hh_mm_ss clock(at - day);
  text->add(static_cast<uint64_t>(static_cast<int>(date.year())), 4);
  text->add("-");
  text->add(static_cast<unsigned>(date.month()), 2);
  text->add("-");
  text->add(static_cast<unsigned>(date.day()), 2);
  text->add("T");
  text->add(static_cast<uint64_t>(clock.hours().count()), 2);
  text->add(":");
  text->add(static_cast<uint64_t>(clock.minutes().count()), 2);
  text->add(":");
  text->add(static_cast<uint64_t>(clock.seconds().count()), 2);
  text->add("Z");
}

void add_reason(Text* text, int number, const char* during, uint64_t epoch) {
  if (number == 0) {
    text->add("called exit");
  } else {
    const char* name = ::sigabbrev_np(number);
    text->add("was killed by signal ");
    text->add(static_cast<uint64_t>(number));
    text->add(" (SIG");
    text->add(name == nullptr ? "?" : name);
    text->add(")");
  }
  text->add(" ");
  text->add(during);
  if (epoch == 0) return;
  text->add(" of epoch ");
  text->add(epoch);
}

void blame(int number) {
  const CrashScope* const scope = t_scope;
  t_scope = nullptr;  // once
  if (scope != nullptr) scope->write(number);
}

void on_fatal(int number, siginfo_t* info, void* context) {
  const int error = errno;
  const struct sigaction& before = previous[number];
  // A file that shrank under its mapping ends nobody.
  if (number == SIGBUS && mapping_guards(info->si_addr) && (before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(number, info, context);
    errno = error;
    return;
  }
  blame(number);
  ::sigaction(number, &before, nullptr);
  // A fault repeats; a signal that was sent does not, nor does a trap, which points behind itself.
  if (info->si_code <= 0 || number == SIGTRAP || number == SIGSYS) ::raise(number);
  errno = error;
}

/// A library that calls exit ends the daemon, and not well.
void on_exit() {
  if (t_scope == nullptr) return;
  blame(0);
  ::_exit(EXIT_FAILURE);
}

void install() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_fatal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    for (const int number : kFatal) ::sigaction(number, &action, &previous[number]);
    std::atexit(on_exit);
  });
}

/// The other stack of a thread, unless it has one already.
class HandlerStack {
 public:
  HandlerStack() {
    stack_t now{};
    if (::sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return;
    memory_ = std::make_unique<char[]>(kHandlerStack);
    now.ss_sp = memory_.get();
    now.ss_size = kHandlerStack;
    now.ss_flags = 0;
    (void)::sigaltstack(&now, nullptr);
  }
  ~HandlerStack() {
    if (memory_ == nullptr) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    (void)::sigaltstack(&none, nullptr);
  }
  HandlerStack(const HandlerStack&) = delete;
  HandlerStack& operator=(const HandlerStack&) = delete;

 private:
  std::unique_ptr<char[]> memory_;
};

}  // namespace

CrashRecord::CrashRecord(const LibrarySource& source, const std::string& key,
                         const std::string& state_dir)
    : dir_(state_dir + "/quarantine"),
      path_(quarantine_path(state_dir, key)),
      head_(fmt::format(R"({{"module":{},"version":{},"library":{},"crashes":1,"ended":"daemon",)"
                        R"("reason":")",
                        json_string(source.module), json_string(source.version),
                        json_string(source.note.id))),
      line_(fmt::format(" error library_ended_daemon module={} version={} reason=\"", source.module,
                        source.version)),
      hint_(fmt::format("\" hint=\"it is not loaded again until {} is removed\"\n", path_)) {
  install();
}

void CrashRecord::write(int number, const char* during, uint64_t epoch) const {
  Text record;
  record.add(head_);
  add_reason(&record, number, during, epoch);
  record.add(R"(","time":")");
  add_time(&record);
  record.add("\"}\n");
  (void)::mkdir(dir_.c_str(), 0700);
  const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) {
    record.write_to(fd);
    (void)::fsync(fd);
    ::close(fd);
  }
  Text line;
  add_time(&line);
  line.add(line_);
  add_reason(&line, number, during, epoch);
  line.add(hint_);
  line.write_to(STDERR_FILENO);
}

CrashScope::CrashScope(const CrashRecord* record, const char* during, uint64_t epoch)
    : record_(record), during_(during), epoch_(epoch), outer_(t_scope) {
  if (record_ == nullptr) return;
  static thread_local const HandlerStack stack;
  t_scope = this;
}

CrashScope::~CrashScope() {
  if (record_ != nullptr) t_scope = outer_;
}

const CrashScope* CrashScope::current() { return t_scope; }

}  // namespace chimera
