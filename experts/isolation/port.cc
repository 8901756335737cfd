// HostPort: the daemon's end of the shared memory.
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/io/env.h"
#include "base/threads/thread_pool.h"
#include "experts/isolation/memory_layout.h"
#include "experts/isolation/protocol.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010  // Linux 5.1
#endif

namespace chimera {
namespace {

namespace bi = boost::interprocess;
using host_layout::FromHost;
using host_layout::ToHost;
using Clock = std::chrono::steady_clock;

// The longest sleep between two looks at whether the host still lives. lose() wakes the sleeper;
// this bounds what a wake-up costs that came just before the sleep.
constexpr std::chrono::milliseconds kSlice{5};

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

/// A memory file whose pages are there: a full memory is an error now and no SIGBUS later.
Result<Fd> make_file(const char* name, uint64_t bytes) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) return errno_status("shared memory", errno);
  if (::fchmod(fd.get(), 0600) != 0) return errno_status("shared memory", errno);
  const int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
  if (error != 0) {
    return errno_status(fmt::format("shared memory of {} KiB", bytes >> 10), error);
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return errno_status("sealing shared memory", errno);
  }
  return fd;
}

}  // namespace

struct HostPort::Impl {
  Impl(const HostGeometry& g, Fd to_file, Fd from_file)
      : geometry(g), to_fd(std::move(to_file)), from_fd(std::move(from_file)) {}

  const HostGeometry geometry;
  Fd to_fd, from_fd;
  bi::mapped_region to_region, from_region;
  ToHost* to = nullptr;
  const FromHost* from = nullptr;
  uint32_t posted = 0;             // requests so far
  uint32_t taken = 0;              // responses so far
  uint32_t rows[kHostSlots] = {};  // of the calls under way
  std::atomic<bool> lost{false};
  AdaptiveSpin spin{auto_threads() > 1};

  std::byte* to_base() { return static_cast<std::byte*>(to_region.get_address()); }
  const std::byte* from_base() const {
    return static_cast<const std::byte*>(from_region.get_address());
  }
  uint32_t host_posted() const {
    return from->counters.posted.value.load(std::memory_order_acquire);
  }
  bool guards_intact(const std::byte* y, uint32_t n) const {
    const auto whole = [](const std::byte* line) {
      return std::all_of(line, line + kHostGuardBytes,
                         [](std::byte b) { return b == std::byte{host_layout::kGuard}; });
    };
    return whole(y - kHostGuardBytes) && whole(y + n * geometry.row_bytes());
  }
  bool wait(Clock::time_point deadline);
  Wait read(Answer* answer);
};

Result<std::unique_ptr<HostPort>> HostPort::create(const HostGeometry& geometry) {
  CHIMERA_RETURN_IF_ERROR(geometry.check());
  Result<Fd> to = make_file("chimera-to-plugin", geometry.to_host_bytes());
  if (!to.ok()) return to.status();
  Result<Fd> from = make_file("chimera-from-plugin", geometry.from_host_bytes());
  if (!from.ok()) return from.status();
  auto to_region = host_layout::map_file(to->get(), bi::read_write, geometry.to_host_bytes());
  if (!to_region.ok()) return to_region.status();
  auto from_region = host_layout::map_file(from->get(), bi::read_only, geometry.from_host_bytes());
  if (!from_region.ok()) return from_region.status();
  // From here on nobody maps it writable any more. A kernel before 5.1 refuses the seal; the host
  // maps it read-only in any case, so only a plugin bent on it could write there.
  (void)::fcntl(to->get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
  auto impl = std::make_unique<Impl>(geometry, std::move(*to), std::move(*from));
  impl->to_region.swap(*to_region);
  impl->from_region.swap(*from_region);
  impl->to = new (impl->to_region.get_address()) ToHost;
  impl->from = static_cast<const FromHost*>(impl->from_region.get_address());
  return std::unique_ptr<HostPort>(new HostPort(std::move(impl)));
}

HostPort::HostPort(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostPort::~HostPort() = default;

int HostPort::to_host_fd() const { return impl_->to_fd.get(); }
int HostPort::from_host_fd() const { return impl_->from_fd.get(); }
void HostPort::close_files() {
  impl_->to_fd.reset();
  impl_->from_fd.reset();
}

uint32_t HostPort::in_flight() const { return impl_->posted - impl_->taken; }

void HostPort::submit(const Call& call) {
  Impl& i = *impl_;
  const uint32_t sequence = i.posted;
  i.rows[sequence % kHostSlots] = call.rows;
  HostRequest request;
  request.sequence = sequence;
  request.layer = call.layer;
  request.expert = call.expert;
  request.rows = call.rows;
  request.x_offset = i.geometry.x_offset(sequence);
  request.y_offset = i.geometry.y_offset(sequence);
  request.deadline_ns = call.deadline_ns;
  request.limit_ns = call.limit_ns;
  std::memcpy(i.to_base() + request.x_offset, call.x, call.rows * i.geometry.row_bytes());
  if (call.row_epochs != nullptr) {
    request.epochs_offset = i.geometry.epochs_offset(sequence);
    std::memcpy(i.to_base() + request.epochs_offset, call.row_epochs, call.rows * sizeof(uint64_t));
  }
  host_layout::store_once(i.to->slots[sequence % kHostSlots], request);
  host_layout::post(i.to->counters.posted, ++i.posted, i.from->counters.asleep);
}

/// True when the host has answered (or claims to have).
bool HostPort::Impl::wait(Clock::time_point deadline) {
  const auto ready = [this] {
    return host_posted() != taken || lost.load(std::memory_order_acquire);
  };
  if (spin.wait(ready)) return true;
  std::atomic<uint32_t>& asleep = to->counters.asleep.value;
  asleep.store(1, std::memory_order_seq_cst);
  bool done = false;
  while (!done) {
    // Sequentially consistent, see host_layout::post.
    const uint32_t seen = from->counters.posted.value.load(std::memory_order_seq_cst);
    if (seen != taken || lost.load(std::memory_order_acquire)) {
      done = true;
      break;
    }
    const Clock::time_point now = Clock::now();
    if (now >= deadline) break;
    host_layout::futex_wait(from->counters.posted.value, seen,
                            std::min<std::chrono::nanoseconds>(deadline - now, kSlice));
  }
  asleep.store(0, std::memory_order_relaxed);
  return done;
}

HostPort::Wait HostPort::Impl::read(Answer* answer) {
  const uint32_t sequence = taken;
  const uint32_t count = host_posted() - taken;
  if (count == 0 || count > posted - taken) {
    answer->status = {Code::kDataCorrupt, fmt::format("found {} responses (expected at most {})",
                                                      count, posted - taken)};
    return Wait::kCorrupt;
  }
  const HostResponse response = host_layout::copy_once(from->slots[sequence % kHostSlots]);
  answer->status = check_response(response, sequence);
  if (!answer->status.ok()) return Wait::kCorrupt;
  if (response.code != CHIMERA_OK) {
    char text[kHostTextBytes];
    std::memcpy(text, from->texts[sequence % kHostSlots], response.text_bytes);
    answer->status = {static_cast<Code>(response.code),
                      printable({text, response.text_bytes}, kHostTextBytes)};
  }
  const std::byte* y = from_base() + geometry.y_offset(sequence);
  answer->y = reinterpret_cast<const float*>(y);
  answer->forward_ns = response.forward_ns;
  answer->guards_intact = guards_intact(y, rows[sequence % kHostSlots]);
  return Wait::kDone;
}

HostPort::Wait HostPort::take(Clock::time_point deadline, Answer* answer) {
  if (!impl_->wait(deadline)) return Wait::kLate;
  // An answer that came before the end is still good: the rows are in our mapping.
  if (impl_->host_posted() == impl_->taken) return Wait::kLost;
  return impl_->read(answer);
}

void HostPort::release() {
  impl_->to->counters.taken.value.store(++impl_->taken, std::memory_order_release);
}

void HostPort::cancel(bool on) {
  impl_->to->counters.cancel.value.store(on ? 1 : 0, std::memory_order_release);
}

void HostPort::lose() {
  impl_->lost.store(true, std::memory_order_release);
  host_layout::futex_wake(impl_->from->counters.posted.value);
}

}  // namespace chimera
