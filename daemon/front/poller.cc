#include "daemon/front/poller.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace chimera {
namespace {

constexpr int kTagShift = 60;
constexpr size_t kBatch = 128;

}  // namespace

Poller::Poller()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (ok()) watch(wake_.get(), 0, EPOLLIN, {Tag::kWake, 0});
}

void Poller::watch(int fd, uint32_t before, uint32_t events, Event about) const {
  if (before == events) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint64_t>(about.tag) << kTagShift | about.number;
  const int operation = before == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  ::epoll_ctl(epoll_.get(), operation, fd, &event);
}

size_t Poller::wait(int timeout_ms, std::span<Event> out) const {
  std::array<epoll_event, kBatch> events;
  const auto most = static_cast<int>(std::min(events.size(), out.size()));
  const int count = ::epoll_wait(epoll_.get(), events.data(), most, timeout_ms);
  for (int i = 0; i < count; ++i) {
    const uint64_t data = events[static_cast<size_t>(i)].data.u64;
    out[static_cast<size_t>(i)] = {static_cast<Tag>(data >> kTagShift),
                                   data & ((uint64_t{1} << kTagShift) - 1)};
  }
  return count > 0 ? static_cast<size_t>(count) : 0;
}

void Poller::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

void Poller::rest() const {
  uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
}

}  // namespace chimera
