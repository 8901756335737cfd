// Calls about other requests, which only the loop knows: `cancel` and `requests`.
#include "base/log/log.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/loop.h"

namespace chimera {
namespace {

// Requests listed by one `requests`: a screen or ten, and far below what a frame holds.
constexpr size_t kMaxListed = 1024;

}  // namespace

void ServerLoop::answer_cancel(const Peer& peer, const wire::Request& request) {
  const auto& target = std::get<wire::Cancel>(request.call).target;
  bool found = false;
  if (const auto client = clients_.find({peer.port, peer.identity}); client != clients_.end()) {
    if (const auto live = client->second.live.find(target); live != client->second.live.end()) {
      found = true;
      live->second->cancel();
    }
  }
  const Answer answer{encode_reply(request.id, {{"target", target}, {"cancelled", found}}), nullptr,
                      /*final=*/true};
  sockets_[peer.port]->send(peer, answer);
}

void ServerLoop::answer_cancel_any(const Peer& peer, const wire::Request& request) {
  const auto& target = std::get<wire::CancelAny>(request.call).target;
  uint64_t found = 0;
  for (auto& [key, client] : clients_) {
    const auto live = client.live.find(target);
    if (key.first != 0 || live == client.live.end()) continue;
    ++found;
    live->second->cancel();
  }
  if (options_.cancel_job && options_.cancel_job(target)) ++found;
  log::info("cancel_requested", {{"found", found}});
  const Answer answer{encode_reply(request.id, {{"target", target}, {"cancelled", found}}), nullptr,
                      /*final=*/true};
  sockets_[peer.port]->send(peer, answer);
}

void ServerLoop::answer_requests(const Peer& peer, const wire::Request& request) {
  Json listed = Json::array();
  for (const auto& [key, client] : clients_) {
    for (const auto& [id, live] : client.live) {
      if (listed.size() == kMaxListed) break;
      listed.push_back(
          {{"id", id},
           {"call", live->call},
           {"endpoint", key.first == 0 ? "serve" : "control"},
           {"seconds", std::chrono::duration<double>(Clock::now() - live->since).count()}});
    }
  }
  const Answer answer{
      encode_reply(request.id, {{"total", counters_.live.load()}, {"requests", std::move(listed)}}),
      nullptr, /*final=*/true};
  sockets_[peer.port]->send(peer, answer);
}

}  // namespace chimera
