#include "daemon/front/front.h"

#include <pthread.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <deque>
#include <map>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/io/env.h"
#include "base/log/log.h"
#include "base/threads/mutex.h"
#include "daemon/front/link.h"
#include "daemon/front/poller.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;

// Connections accepted from one listener before those that are there get their turn.
constexpr int kAcceptBatch = 64;
// Without descriptors nothing is accepted for so long; then it is tried again.
constexpr std::chrono::milliseconds kPause{100};
// What libzmq may hold of all connections together, and after how many bytes that is looked at.
constexpr uint64_t kMostHeldTogether = 96u << 20, kLookEvery = 1u << 20;
// Refusals for want of room are told once in so long.
constexpr std::chrono::seconds kLogInterval{1};

}  // namespace

struct Front::Impl {
  explicit Impl(Options given)
      : options(std::move(given)),
        per_endpoint(options.endpoints.size()),
        accepted(options.endpoints.size()) {}

  void run();
  void handle(const Poller::Event& event);
  void accept_from(size_t endpoint);
  void open(size_t endpoint, OwnedFd outer);
  bool has_room(size_t endpoint, const PeerName& name);
  void tend(Link& link);
  void tell(Link& link) const;
  void look_at_all();
  void close(Link& link);
  void take_wishes();
  void listen(bool on);

  const Options options;
  const Poller poller;
  std::vector<Listener> listeners;

  // The front's thread only.
  std::unordered_map<uint64_t, std::unique_ptr<Link>> links;
  std::map<std::pair<size_t, std::string>, size_t> per_origin;  // by endpoint and origin
  std::vector<size_t> per_endpoint;
  uint64_t next_number = 1;
  bool paused = false;
  Clock::time_point pause_ends, next_log;
  uint64_t refused = 0;
  uint64_t progress = 0;  // bytes handed to libzmq since look_at_all

  Mutex mutex;
  std::vector<std::deque<FrontPeer>> accepted GUARDED_BY(mutex);  // by libzmq, not yet asked for
  std::vector<uint64_t> hang_ups GUARDED_BY(mutex);
  std::vector<uint64_t> resumed GUARDED_BY(mutex);  // something of theirs was taken
  std::optional<Clock::time_point> stop_at GUARDED_BY(mutex);

  std::optional<Clock::time_point> ends;  // the front's thread: stop_at
  std::thread thread;
};

void Front::Impl::listen(bool on) {
  constexpr uint32_t kNothing = 0, kConnections = EPOLLIN;
  for (size_t i = 0; i < listeners.size(); ++i) {
    poller.watch(listeners[i].fd(), on ? kNothing : kConnections, on ? kConnections : kNothing,
                 {Poller::Tag::kListener, i});
  }
  paused = !on;
}

void Front::Impl::run() {
  pthread_setname_np(pthread_self(), "chimera-front");
  std::array<Poller::Event, 128> events;
  while (!ends || (!links.empty() && Clock::now() < *ends)) {
    const int timeout = paused || ends ? static_cast<int>(kPause.count()) : -1;
    const size_t count = poller.wait(timeout, events);
    for (size_t i = 0; i < count; ++i) handle(events[i]);
    if (paused && !ends && Clock::now() >= pause_ends) listen(true);
  }
  links.clear();
}

void Front::Impl::handle(const Poller::Event& event) {
  switch (event.tag) {
    case Poller::Tag::kWake:
      return take_wishes();
    case Poller::Tag::kListener:
      if (!ends) accept_from(event.number);
      return;
    case Poller::Tag::kOuter:
    case Poller::Tag::kInner:
      // It may have ended with an event before this one.
      if (const auto link = links.find(event.number); link != links.end()) tend(*link->second);
      return;
  }
}

void Front::Impl::take_wishes() {
  poller.rest();
  std::vector<uint64_t> numbers, go_on;
  {
    const MutexLock lock(mutex);
    numbers.swap(hang_ups);
    go_on.swap(resumed);
    if (stop_at && !ends) {
      ends = stop_at;
      listeners.clear();
    }
  }
  for (const uint64_t number : numbers) {
    const auto link = links.find(number);
    if (link == links.end()) continue;
    link->second->hang_up();
    tend(*link->second);
  }
  for (const uint64_t number : go_on) {
    if (const auto link = links.find(number); link != links.end()) tend(*link->second);
  }
}

void Front::Impl::accept_from(size_t endpoint) {
  for (int i = 0; i < kAcceptBatch; ++i) {
    OwnedFd outer = listeners[endpoint].accept();
    if (outer.valid()) {
      open(endpoint, std::move(outer));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      log::warning("connections_paused", {{"reason", "no descriptors are left"}});
      pause_ends = Clock::now() + kPause;
      listen(false);
    }
    return;
  }
}

bool Front::Impl::has_room(size_t endpoint, const PeerName& name) {
  const Endpoint& at = options.endpoints[endpoint];
  const auto known = per_origin.find({endpoint, name.origin});
  const size_t of_host = name.uid || known == per_origin.end() ? 0 : known->second;
  if (per_endpoint[endpoint] < at.most && of_host < at.most_per_host) return true;
  ++refused;
  if (const auto now = Clock::now(); now >= next_log) {
    next_log = now + kLogInterval;
    log::warning("connections_refused", {{"peer", name.origin},
                                         {"open", per_endpoint[endpoint]},
                                         {"of_this_host", of_host},
                                         {"refused_since_last_told", refused}});
    refused = 0;
  }
  return false;
}

void Front::Impl::open(size_t endpoint, OwnedFd outer) {
  const Endpoint& at = options.endpoints[endpoint];
  PeerName name = name_peer(outer.get());
  if (!has_room(endpoint, name)) return;  // closes it
  FrontPeer peer{next_number++, endpoint, std::move(name.address), name.uid};
  auto properties = options.admit(peer);
  OwnedFd inner;
  {
    // The order of connecting is that of accepting, and nobody asks in between.
    const MutexLock lock(mutex);
    inner = connect_to(at.inner);
    if (inner.valid()) accepted[endpoint].push_back(peer);
  }
  if (!inner.valid()) return;
  const bool admitted = properties.has_value();
  Handshake handshake(at.mechanism, properties.value_or(ReadyProperties{}));
  const uint64_t number = peer.number;
  ++per_endpoint[endpoint];
  ++per_origin[{endpoint, name.origin}];
  auto link = std::make_unique<Link>(std::move(peer), std::move(name.origin), std::move(outer),
                                     std::move(inner), std::move(handshake), admitted);
  tell(*link);
  links.emplace(number, std::move(link));
}

void Front::Impl::tend(Link& link) {
  const bool goes_on = link.pump();
  progress += link.take_progress();
  if (!goes_on) return close(link);
  tell(link);
  if (progress >= kLookEvery) look_at_all();
}

void Front::Impl::look_at_all() {
  progress = 0;
  uint64_t together = 0, most = 0;
  Link* heaviest = nullptr;
  for (const auto& [number, link] : links) {
    if (link->parting()) continue;  // is let go of
    const uint64_t held = link->held();
    together += held;
    if (held >= most) most = held, heaviest = link.get();
  }
  if (together <= kMostHeldTogether) return;
  log::warning("connection_cut_off", {{"peer", heaviest->peer().address},
                                      {"reason", "messages that do not end, or are too many"},
                                      {"held_bytes", most},
                                      {"held_bytes_of_all", together}});
  heaviest->part();
  tend(*heaviest);
}

void Front::Impl::tell(Link& link) const {
  for (const auto side : {Link::Side::kOuter, Link::Side::kInner}) {
    const uint32_t events = link.interest(side);
    const uint32_t before = std::exchange(link.told[static_cast<size_t>(side)], events);
    const auto tag = side == Link::Side::kOuter ? Poller::Tag::kOuter : Poller::Tag::kInner;
    poller.watch(link.fd(side), before, events, {tag, link.peer().number});
  }
}

void Front::Impl::close(Link& link) {
  const size_t endpoint = link.peer().endpoint;
  --per_endpoint[endpoint];
  const auto origin = per_origin.find({endpoint, link.origin()});
  if (origin != per_origin.end() && --origin->second == 0) per_origin.erase(origin);
  links.erase(link.peer().number);
}

Front::Front(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Front>> Front::start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (!impl->poller.ok()) return errno_status("front", errno);
  for (const Endpoint& endpoint : impl->options.endpoints) {
    auto listener = Listener::bind(endpoint.address, endpoint.mode);
    if (!listener.ok()) return listener.status();
    impl->listeners.push_back(std::move(listener).value());
  }
  impl->listen(true);
  auto front = std::unique_ptr<Front>(new Front(std::move(impl)));
  front->impl_->thread = std::thread([raw = front->impl_.get()] { raw->run(); });
  return front;
}

void Front::stop(std::chrono::milliseconds flush) {
  {
    const MutexLock lock(impl_->mutex);
    if (!impl_->stop_at) impl_->stop_at = Clock::now() + flush;
  }
  impl_->poller.wake();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Front::~Front() { stop(std::chrono::milliseconds(0)); }

std::optional<FrontPeer> Front::next_accepted(size_t endpoint) {
  const MutexLock lock(impl_->mutex);
  auto& waiting = impl_->accepted[endpoint];
  if (waiting.empty()) return std::nullopt;
  FrontPeer peer = std::move(waiting.front());
  waiting.pop_front();
  return peer;
}

void Front::took(const FrontPeer& peer, uint64_t bytes) {
  peer.taken->bytes.fetch_add(bytes, std::memory_order_release);
  peer.taken->messages.fetch_add(1, std::memory_order_release);
  if (!peer.taken->waited_for.exchange(false)) return;
  {
    const MutexLock lock(impl_->mutex);
    impl_->resumed.push_back(peer.number);
  }
  impl_->poller.wake();
}

void Front::hang_up(uint64_t number) {
  {
    const MutexLock lock(impl_->mutex);
    impl_->hang_ups.push_back(number);
  }
  impl_->poller.wake();
}

}  // namespace chimera
