#include "chimera_client/async_client.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "base/threads/mutex.h"
#include "chimera_client/lane.h"
#include "clients/wire/endpoints.h"

namespace chimera::client {
namespace {

// What a daemon takes of one connection (PROTOCOL.md).
constexpr size_t kRequestsPerLane = 64;
// Lanes that are kept open without a request, so that the next burst does not connect anew.
constexpr size_t kIdleLanes = 4;

struct Order {
  wire::Endpoint endpoint;
  std::string id;
  std::string body;  // empty: cancel `id`
  AsyncClient::OnEvent on_event;
};

}  // namespace

struct AsyncClient::Impl {
  explicit Impl(const Options& options)
      : endpoints{options.serve.empty() ? wire::default_serve_endpoint() : options.serve,
                  options.control.empty() ? wire::default_control_endpoint() : options.control},
        files(key_files(options)),
        connect_timeout(options.connect_timeout),
        wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Impl() { close(wake); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void give(Order order) {
    {
      MutexLock lock(mutex);
      orders.push_back(std::move(order));
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake, &one, sizeof one);
  }
  void run();
  void take_orders();
  void execute(Order order);
  void wait(std::vector<zmq::pollitem_t>& items);
  Lane& lane_with_room(wire::Endpoint which);
  void close_idle(std::vector<std::unique_ptr<Lane>>& of_endpoint);

  const std::array<std::string, 2> endpoints;
  const KeyFiles files;
  const Milliseconds connect_timeout;
  const int wake;
  /// Ids of different clients differ, so that one of them can be named in `cancel` from elsewhere.
  const uint32_t mark = std::random_device()();
  std::atomic<uint64_t> last_id{0};
  std::atomic<bool> stopping{false};

  Mutex mutex;
  std::vector<Order> orders GUARDED_BY(mutex);

  // Of the thread.
  zmq::context_t context;
  std::array<std::vector<std::unique_ptr<Lane>>, 2> lanes;
  std::thread thread;
};

void AsyncClient::Impl::run() {
  std::vector<zmq::pollitem_t> items;
  while (!stopping) {
    take_orders();
    for (auto& of_endpoint : lanes) {
      for (auto& lane : of_endpoint) lane->advance();
      close_idle(of_endpoint);
    }
    wait(items);
  }
  for (auto& of_endpoint : lanes) of_endpoint.clear();
}

void AsyncClient::Impl::wait(std::vector<zmq::pollitem_t>& items) {
  using Clock = Lane::Clock;
  items.assign(1, {nullptr, wake, ZMQ_POLLIN, 0});
  std::optional<Clock::time_point> due;
  for (auto& of_endpoint : lanes) {
    for (auto& lane : of_endpoint) {
      lane->watch(items);
      const auto at = lane->due();
      if (at && (!due || *at < *due)) due = at;
    }
  }
  Milliseconds timeout(-1);
  if (due) {
    timeout = std::chrono::ceil<Milliseconds>(*due - Clock::now());
    timeout = std::max(timeout, Milliseconds(0));
  }
  try {
    zmq::poll(items, timeout);
  } catch (const zmq::error_t&) {  // a signal: looked at again
  }
}

void AsyncClient::Impl::take_orders() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = read(wake, &count, sizeof count);
  std::vector<Order> taken;
  {
    MutexLock lock(mutex);
    std::swap(taken, orders);
  }
  for (Order& order : taken) execute(std::move(order));
}

void AsyncClient::Impl::execute(Order order) {
  auto& of_endpoint = lanes[static_cast<size_t>(order.endpoint)];
  if (!order.body.empty()) {
    return lane_with_room(order.endpoint)
        .send(order.id, std::move(order.body), std::move(order.on_event));
  }
  for (auto& lane : of_endpoint) {
    if (!lane->holds(order.id)) continue;
    return lane->send(wire::encode_request({"cancel-" + order.id, wire::Cancel{order.id}}));
  }
}

Lane& AsyncClient::Impl::lane_with_room(wire::Endpoint which) {
  auto& of_endpoint = lanes[static_cast<size_t>(which)];
  for (auto& lane : of_endpoint) {
    if (lane->in_progress() < kRequestsPerLane) return *lane;
  }
  of_endpoint.push_back(std::make_unique<Lane>(context, endpoints[static_cast<size_t>(which)],
                                               files, connect_timeout));
  return *of_endpoint.back();
}

void AsyncClient::Impl::close_idle(std::vector<std::unique_ptr<Lane>>& of_endpoint) {
  size_t idle = 0;
  std::erase_if(of_endpoint, [&](const std::unique_ptr<Lane>& lane) {
    return lane->in_progress() == 0 && ++idle > kIdleLanes;
  });
}

AsyncClient::AsyncClient(Options options) : impl_(std::make_unique<Impl>(options)) {
  // Signals are for the threads of the program.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
  pthread_setname_np(impl_->thread.native_handle(), "chimera-client");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

AsyncClient::~AsyncClient() {
  impl_->stopping = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(impl_->wake, &one, sizeof one);
  impl_->thread.join();
}

const std::string& AsyncClient::endpoint(wire::Endpoint which) const {
  return impl_->endpoints[static_cast<size_t>(which)];
}

std::string AsyncClient::send(const wire::Call& call, OnEvent on_event,
                              const std::string& traceparent) {
  std::string id = fmt::format("a{:08x}-{}", impl_->mark, ++impl_->last_id);
  impl_->give({wire::endpoint_of(call), id, wire::encode_request({id, call, traceparent}),
               std::move(on_event)});
  return id;
}

void AsyncClient::cancel(const std::string& id) {
  impl_->give({wire::Endpoint::kServe, id, "", {}});
}

}  // namespace chimera::client
