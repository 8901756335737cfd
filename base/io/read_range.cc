#include "base/io/read_range.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>
#include <vector>

#include "base/threads/background.h"
#include "base/threads/mutex.h"
#include "base/threads/progress.h"
#include "base/threads/thread_pool.h"

namespace chimera {
namespace {

constexpr uint64_t kParallelBytes = 256u << 20;
// Large enough that a share is mostly whole huge pages, small enough to balance eight threads.
constexpr uint64_t kShareBytes = 32u << 20;
constexpr int kMostThreads = 8;
// One system call: some 0.2 ms with the pages that it fills; then a background load gives way.
constexpr uint64_t kCallBytes = 256u << 10;

Status read_share(Env& env, int fd, const std::string& path, std::byte* out, uint64_t offset,
                  uint64_t n) {
  while (n > 0) {
    const ssize_t got = env.pread(fd, out, static_cast<size_t>(std::min(n, kCallBytes)),
                                  static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_status(path + ": read", errno);
    if (got == 0)
      return Status(Code::kDataCorrupt, path + ": was truncated while being read",
                    "Get the file again or write it with a current safetensors library.");
    out += got;
    offset += static_cast<uint64_t>(got);
    n -= static_cast<uint64_t>(got);
    note_progress(static_cast<uint64_t>(got));
    if (work_given_up()) return Status(Code::kCancelled, path + ": reading it was given up");
    give_way();
  }
  return Status();
}

/// Hands out shares until none is left or one has failed.
class SharedRead {
 public:
  SharedRead(Env& env, int fd, const std::string& path, std::byte* out, uint64_t offset, uint64_t n)
      : env_(env), fd_(fd), path_(path), out_(out), offset_(offset), n_(n) {}

  void work() {
    for (;;) {
      const uint64_t at = next_.fetch_add(kShareBytes);
      if (at >= n_) return;
      const Status status =
          read_share(env_, fd_, path_, out_ + at, offset_ + at, std::min(kShareBytes, n_ - at));
      if (status.ok()) continue;
      next_.store(n_);
      const MutexLock lock(mutex_);
      if (status_.ok()) status_ = status;
      return;
    }
  }
  Status status() const {
    const MutexLock lock(mutex_);
    return status_;
  }

 private:
  Env& env_;
  const int fd_;
  const std::string& path_;
  std::byte* const out_;
  const uint64_t offset_, n_;
  std::atomic<uint64_t> next_{0};
  mutable Mutex mutex_;
  Status status_ GUARDED_BY(mutex_);  // the first error
};

}  // namespace

Status read_range(Env& env, int fd, const std::string& path, std::byte* out, uint64_t offset,
                  uint64_t n) {
  if (n < kParallelBytes) return read_share(env, fd, path, out, offset, n);
  SharedRead shared(env, fd, path, out, offset, n);
  std::vector<std::jthread> helpers;
  try {
    for (int i = 1; i < std::min(auto_threads(), kMostThreads); ++i)
      helpers.emplace_back([&shared, helper = BackgroundHelper(), progress = current_progress()] {
        const BackgroundScope scope = helper.scope();
        const ProgressScope counted(progress);
        shared.work();
      });
  } catch (const std::system_error&) {
    // Fewer threads do it too.
  }
  shared.work();
  helpers.clear();  // joins
  return shared.status();
}

}  // namespace chimera
