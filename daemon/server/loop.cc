#include "daemon/server/loop.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>

#include "base/log/log.h"
#include "base/quote.h"
#include "daemon/security/rules.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/request_log.h"

namespace chimera {
namespace {

// A full pipe does not announce that it has room again, so it is tried this often.
constexpr std::chrono::milliseconds kRetry{10};

std::string_view socket_name(size_t port) { return port == 0 ? "serve" : "control"; }

}  // namespace

ServerLoop::ServerLoop(Options options, ServerCounters& counters, Handler handler)
    : options_(std::move(options)),
      counters_(counters),
      handler_(std::move(handler)),
      decoder_([ready = ready_] { ready->wake(); }, options_.decode) {}

Result<std::unique_ptr<ServerLoop>> ServerLoop::start(Options options, ServerCounters& counters,
                                                      Handler handler) {
  auto loop =
      std::unique_ptr<ServerLoop>(new ServerLoop(std::move(options), counters, std::move(handler)));
  if (loop->ready_->fd() < 0) {
    return Status(Code::kResourceExhausted, "server: no event descriptor",
                  "raise the limit of open files");
  }
  CHIMERA_RETURN_IF_ERROR(loop->open_sockets());
  // Sockets may move between threads with a full fence; starting the thread is one.
  loop->thread_ = std::thread([raw = loop.get()] { raw->run(); });
  loop->options_.authority->listen([raw = loop.get()] {
    raw->rights_changed_ = true;
    raw->ready_->wake();
  });
  return loop;
}

ServerLoop::~ServerLoop() {
  stop();
  for (auto& socket : sockets_) socket.reset();
  // The front hands on what libzmq still sends while its context ends.
  context_.reset();
  if (front_) front_->stop(options_.flush);
}

void ServerLoop::stop() {
  if (options_.authority != nullptr) options_.authority->listen({});
  stopping_ = true;
  ready_->wake();
  if (thread_.joinable()) thread_.join();
}

void ServerLoop::run() {
  pthread_setname_np(pthread_self(), "chimera-io");
  while (step()) {
  }
  // What ZeroMQ still holds may go out while the context ends.
  for (auto& socket : sockets_) {
    socket->set_linger(options_.flush);
    socket.reset();
  }
  for (auto& [key, client] : clients_) {
    for (auto& [id, live] : client.live) live->abandon();
  }
  clients_.clear();
  blocked_.clear();
}

bool ServerLoop::step() {
  const bool idle = blocked_.empty() && cuts_.empty() && !stopping_;
  RouterSocket::wait(sockets_, ready_->fd(), idle ? std::nullopt : std::optional(kRetry));

  if (stopping_ && !stop_at_) begin_stop();
  if (rights_changed_.exchange(false)) review_rights();
  for (const auto& live : ready_->take()) {
    if (!pump(live)) blocked_.push_back({live, Clock::now()});
  }
  retry_blocked();
  for (size_t port = 0; port < sockets_.size(); ++port) {
    notice_disconnects(port);
  }
  handle_decoded();
  for (size_t port = 0; port < sockets_.size(); ++port) receive(port);
  cut_off();
  if (!stop_at_) return true;
  const bool busy = !clients_.empty() || !decoder_.idle() || answers_being_read();
  return busy && Clock::now() < *stop_at_;
}

void ServerLoop::begin_stop() {
  stop_at_ = Clock::now() + options_.flush;
  for (auto& [key, client] : clients_) {
    for (auto& [id, live] : client.live) live->cancel();
  }
}

void ServerLoop::notice_disconnects(size_t port) {
  for (const int fd : sockets_[port]->take_disconnected()) {
    answered_.erase({port, fd});
    connections_.erase({port, fd});
    std::erase_if(senders_, [&](const auto& entry) {
      if (entry.first.first != port || entry.second.fd != fd) return false;
      decoder_.forget(entry.first);
      return true;
    });
    std::erase_if(cuts_, [&](const Cut& cut) { return cut.port == port && cut.fd == fd; });
    const auto gone = std::find_if(clients_.begin(), clients_.end(), [&](const auto& entry) {
      return entry.first.first == port && entry.second.fd == fd;
    });
    if (gone != clients_.end()) drop_client(ClientKey(gone->first), counters_.gone_clients);
  }
}

bool ServerLoop::pump(const std::shared_ptr<Live>& live) {
  if (live->take_overflow()) {
    ++counters_.slow_clients;
    live->cancel();
  }
  const Peer& peer = live->peer();
  while (auto answer = live->next()) {
    switch (sockets_[peer.port]->send(peer, *answer)) {
      case RouterSocket::Sent::kOk:
        break;
      case RouterSocket::Sent::kFull:
        live->put_back(std::move(*answer));
        return false;
      case RouterSocket::Sent::kGone:
        drop_client({peer.port, peer.identity}, counters_.gone_clients);
        return true;
    }
    if (answer->final) forget(*live);
  }
  return true;
}

void ServerLoop::retry_blocked() {
  if (blocked_.empty()) return;
  std::vector<Blocked> waiting;
  std::swap(waiting, blocked_);
  for (Blocked& entry : waiting) {
    if (pump(entry.live)) continue;
    const Peer& peer = entry.live->peer();
    if (Clock::now() - entry.since < options_.slow_cutoff) {
      blocked_.push_back(std::move(entry));
    } else {
      drop_client({peer.port, peer.identity}, counters_.slow_clients);
    }
  }
}

bool ServerLoop::answers_being_read() {
  const Clock::time_point oldest = Clock::now() - options_.hang_up;
  std::erase_if(answered_, [&](const auto& entry) { return entry.second < oldest; });
  return !answered_.empty();
}

void ServerLoop::forget(const Live& live) {
  const auto client = clients_.find({live.peer().port, live.peer().identity});
  if (client == clients_.end()) return;
  const auto entry = client->second.live.find(live.id());
  if (entry == client->second.live.end() || entry->second.get() != &live) return;
  log_end(live, Left::kStayed);
  leave(entry->second);
  client->second.live.erase(entry);
  answered_[{live.peer().port, client->second.fd}] = Clock::now();
  --counters_.live;
  if (!client->second.live.empty()) return;
  clients_.erase(client);
  --counters_.clients;
}

void ServerLoop::drop_client(const ClientKey& key, std::atomic<uint64_t>& counter) {
  const auto client = clients_.find(key);
  if (client == clients_.end()) return;
  auto ended = std::move(client->second.live);
  clients_.erase(client);
  --counters_.clients;
  ++counter;
  log::debug("connection_dropped",
             {{"endpoint", socket_name(key.first)}, {"requests", ended.size()}});
  for (auto& [id, live] : ended) {
    --counters_.live;
    leave(live);
    log_end(*live, Left::kGone);
    live->abandon();
  }
}

}  // namespace chimera
