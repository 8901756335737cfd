// What comes in: from frames to requests in progress.
#include <fmt/format.h>

#include "base/log/log.h"
#include "base/quote.h"
#include "daemon/security/rules.h"
#include "daemon/server/loop.h"

namespace chimera {
namespace {

// Requests taken from one socket before the queued answers get their turn.
constexpr int kReceiveBatch = 64;
// And bytes of them, which are copied here.
constexpr size_t kReceiveBytes = 64u << 10;
// Messages of at most so many bytes are read here, in less than a millisecond; a detour would take
// longer.
constexpr size_t kReadHere = 8u << 10;
std::string_view endpoint_name(size_t port) { return port == 0 ? "serve" : "control"; }

wire::Error frames_error(const Incoming& incoming) {
  const auto count = incoming.frames.size();
  if (count == 0 || incoming.frames[0] != wire::kMagic) {
    const std::string found =
        count == 0 ? "no frames"
                   : fmt::format("first frame of {} bytes", incoming.frames[0].size());
    return {"invalid_argument",
            fmt::format("message: {} (expected the frame {} first)", found, wire::kMagic),
            "speak chimera/1 as clients/PROTOCOL.md describes"};
  }
  return {"invalid_argument",
          fmt::format("message: {} (expected {} and one JSON frame)",
                      count < 2 ? "no JSON frame" : "too many frames", wire::kMagic),
          "send one JSON object per message"};
}

}  // namespace

void ServerLoop::receive(size_t port) {
  size_t bytes = 0;
  for (int i = 0; i < kReceiveBatch && bytes < kReceiveBytes; ++i) {
    auto incoming = sockets_[port]->receive();
    if (!incoming) return;
    for (const std::string& frame : incoming->frames) bytes += frame.size();
    // A descriptor may be used again by the next connection. The end of the old one was reported
    // before the new one could send, so taking reports first never hits the wrong client.
    notice_disconnects(port);
    // What a peer that is gone had sent may come late. It is done, as that peer's and nobody
    // else's.
    if (!sockets_[port]->connected(*incoming)) incoming->fd = -1;
    handle(std::move(*incoming));
  }
}

void ServerLoop::handle(Incoming incoming) {
  Peer& peer = incoming.peer;
  if (incoming.frames.size() != 2 || incoming.frames[0] != wire::kMagic) {
    sockets_[peer.port]->took(incoming.fd, incoming.cost);
    // At once, before the answers to what is being read: it has no id that could be mistaken.
    return refuse(peer, "", frames_error(incoming));
  }
  const Decoder::Connection from{peer.port, peer.identity};
  Undecoded message{std::move(incoming.frames[1]), peer.delimiter, incoming.cost};
  if (incoming.fd >= 0) connections_[{peer.port, incoming.fd}] = peer;
  if (message.text.size() > kReadHere || decoder_.holds(from)) {
    senders_[from] = {peer, incoming.fd};
    return decoder_.post(from, std::move(message));
  }
  const auto endpoint = peer.port == 0 ? wire::Endpoint::kServe : wire::Endpoint::kControl;
  handle(peer, incoming.fd, options_.decode(std::move(message), endpoint));
}

void ServerLoop::handle_decoded() {
  for (auto& [from, decoded] : decoder_.take()) {
    const auto sender = senders_.find(from);
    if (sender == senders_.end()) continue;
    Peer peer = sender->second.peer;
    handle(peer, sender->second.fd, std::move(decoded));
  }
  std::erase_if(senders_, [this](const auto& entry) { return !decoder_.holds(entry.first); });
}

void ServerLoop::handle(Peer& peer, int fd, Decoded decoded) {
  peer.delimiter = decoded.message.delimiter;
  sockets_[peer.port]->took(fd, decoded.message.cost);
  if (!known(peer, decoded.id, fd)) return;
  if (fd >= 0) connections_[{peer.port, fd}] = peer;
  if (const auto* error = std::get_if<wire::Error>(&decoded.request)) {
    if (peer.port == 1) record_unread(peer, *error);
    return refuse(peer, decoded.id, *error);
  }
  ++counters_.requests;
  auto& request = std::get<wire::Request>(decoded.request);
  // Never what was asked about: prompts are nobody's business.
  log::debug("request", {{"endpoint", endpoint_name(peer.port)},
                         {"call", wire::call_name(request.call)},
                         {"bytes", decoded.message.text.size()},
                         {"traceparent", request.traceparent}});
  AuditEntry entry = audit_entry(peer, wire::call_name(request.call), std::move(decoded.arguments));
  if (!allowed(peer, request, entry)) return;
  if (std::holds_alternative<wire::Cancel>(request.call) ||
      std::holds_alternative<wire::CancelAny>(request.call) ||
      std::holds_alternative<wire::Requests>(request.call)) {
    return carry_out(peer, request, std::move(entry));
  }
  if (stop_at_) {
    return refuse(peer, decoded.id,
                  {"unavailable", "daemon: shutting down", "try again when it is back"});
  }
  dispatch(peer, std::move(request), entry, std::move(decoded.message.text));
  const auto client = clients_.find({peer.port, peer.identity});
  if (client != clients_.end()) client->second.fd = fd;
}

void ServerLoop::dispatch(const Peer& peer, wire::Request request, const AuditEntry& entry,
                          std::string text) {
  const ClientKey key{peer.port, peer.identity};
  const auto known = clients_.find(key);
  if (known != clients_.end()) {
    if (known->second.live.contains(request.id)) {
      return refuse(
          peer, request.id,
          {"already_exists",
           fmt::format("id: {} is still in progress (expected a new one)", quote(request.id)),
           "use another id, or wait for its done or error"});
    }
    if (known->second.live.size() >= options_.live_per_client) {
      return refuse(peer, request.id,
                    {"resource_exhausted",
                     fmt::format("connection: {} requests in progress (expected at most that many)",
                                 known->second.live.size()),
                     "wait for one of them to end"});
    }
  }
  auto live = std::make_shared<Live>(request.id, peer, options_.queued_per_request, ready_);
  live->call = wire::call_name(request.call);
  live->call_index = request.call.index();
  live->since = Clock::now();
  live->traceparent = request.traceparent;
  if (wire::wants_receipt(request.call)) live->request_text = std::move(text);
  if (peer.port == 1) {
    const bool change = rule_of(request.call).change;
    live->set_recorder([this, entry, change](const Status& outcome, std::function<void()> then) {
      if (change && outcome.ok()) {
        unrecorded_->add();
        return record(entry, outcome, [then = std::move(then), unrecorded = unrecorded_] {
          then();
          unrecorded->remove();
        });
      }
      record(entry, outcome);
      then();
    });
  }
  if (known == clients_.end()) ++counters_.clients;
  ++counters_.live;
  clients_[key].live.emplace(request.id, live);
  handler_(std::move(live), std::move(request.call));
}

}  // namespace chimera
