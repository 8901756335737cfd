// HostServePort: the plugin host's end of the shared memory.
#include <algorithm>

#include "base/threads/thread_pool.h"
#include "experts/isolation/memory_layout.h"

namespace chimera {
namespace {

namespace bi = boost::interprocess;
using host_layout::FromHost;
using host_layout::ToHost;
using Clock = std::chrono::steady_clock;

// stop() does not change what the waiter sleeps on: one that comes between its last look and its
// sleep is seen after this time.
constexpr std::chrono::milliseconds kWakeSlice{50};

}  // namespace

struct HostServePort::Impl {
  HostGeometry geometry;
  bi::mapped_region to_region, from_region;
  const ToHost* to = nullptr;
  FromHost* from = nullptr;
  uint32_t taken = 0;  // requests so far; also the number of the call under way
  AdaptiveSpin spin{auto_threads() > 1};
  std::atomic<bool> stopped{false};

  bool wait(std::chrono::milliseconds timeout);
};

Result<std::unique_ptr<HostServePort>> HostServePort::attach(const HostGeometry& geometry,
                                                             int to_host_fd, int from_host_fd) {
  CHIMERA_RETURN_IF_ERROR(geometry.check());
  auto to = host_layout::map_file(to_host_fd, bi::read_only, geometry.to_host_bytes());
  if (!to.ok()) return to.status();
  auto from = host_layout::map_file(from_host_fd, bi::read_write, geometry.from_host_bytes());
  if (!from.ok()) return from.status();
  auto impl = std::make_unique<Impl>();
  impl->geometry = geometry;
  impl->to_region.swap(*to);
  impl->from_region.swap(*from);
  impl->to = static_cast<const ToHost*>(impl->to_region.get_address());
  impl->from = new (impl->from_region.get_address()) FromHost;
  return std::unique_ptr<HostServePort>(new HostServePort(std::move(impl)));
}

HostServePort::HostServePort(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostServePort::~HostServePort() = default;

bool HostServePort::Impl::wait(std::chrono::milliseconds timeout) {
  const std::atomic<uint32_t>& posted = to->counters.posted.value;
  if (spin.wait([&] { return posted.load(std::memory_order_acquire) != taken; })) return true;
  std::atomic<uint32_t>& asleep = from->counters.asleep.value;
  asleep.store(1, std::memory_order_seq_cst);
  const Clock::time_point deadline = Clock::now() + timeout;
  bool done = false;
  for (;;) {
    // Sequentially consistent, see host_layout::post.
    done = posted.load(std::memory_order_seq_cst) != taken;
    const Clock::time_point now = Clock::now();
    if (done || now >= deadline || stopped.load(std::memory_order_acquire)) break;
    host_layout::futex_wait(posted, taken,
                            std::min<std::chrono::nanoseconds>(deadline - now, kWakeSlice));
  }
  asleep.store(0, std::memory_order_relaxed);
  return done;
}

Result<bool> HostServePort::next(std::chrono::milliseconds timeout, Call* call) {
  Impl& i = *impl_;
  if (!i.wait(timeout)) return false;
  call->request = host_layout::copy_once(i.to->slots[i.taken % kHostSlots]);
  CHIMERA_RETURN_IF_ERROR(check_request(call->request, i.taken, i.geometry));
  auto* y = static_cast<std::byte*>(i.from_region.get_address()) + call->request.y_offset;
  const auto* from_daemon = static_cast<const std::byte*>(i.to_region.get_address());
  call->x = reinterpret_cast<const float*>(from_daemon + call->request.x_offset);
  call->row_epochs =
      call->request.epochs_offset == 0
          ? nullptr
          : reinterpret_cast<const uint64_t*>(from_daemon + call->request.epochs_offset);
  call->y = reinterpret_cast<float*>(y);
  const uint64_t bytes = call->request.rows * i.geometry.row_bytes();
  std::memset(y - kHostGuardBytes, host_layout::kGuard, kHostGuardBytes);
  // NaN: a value that the plugin leaves out is no old one.
  std::memset(y, 0xff, bytes);
  std::memset(y + bytes, host_layout::kGuard, kHostGuardBytes);
  return true;
}

void HostServePort::reply(const Status& status, uint64_t forward_ns) {
  Impl& i = *impl_;
  const uint32_t sequence = i.taken++;
  HostResponse response;
  response.sequence = sequence;
  response.code = static_cast<uint32_t>(status.code());
  response.forward_ns = forward_ns;
  if (!status.ok()) {
    response.text_bytes = static_cast<uint32_t>(std::min(status.message().size(), kHostTextBytes));
    std::memcpy(i.from->texts[sequence % kHostSlots], status.message().data(), response.text_bytes);
  }
  host_layout::store_once(i.from->slots[sequence % kHostSlots], response);
  host_layout::post(i.from->counters.posted, i.taken, i.to->counters.asleep);
}

void HostServePort::stop() {
  impl_->stopped.store(true, std::memory_order_release);
  host_layout::futex_wake(impl_->to->counters.posted.value);
}

const std::atomic<uint32_t>* HostServePort::cancel_flag() const {
  return &impl_->to->counters.cancel.value;
}

}  // namespace chimera
