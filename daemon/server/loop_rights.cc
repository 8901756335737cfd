// Who may ask for what: the gate of the loop, the record of what went through it, and what becomes
// of requests and connections whose client's rights change.
#include <algorithm>

#include "base/log/log.h"
#include "daemon/security/rules.h"
#include "daemon/server/loop.h"

namespace chimera {
namespace {

Status no_client(const Peer& peer) {
  return {Code::kPermissionDenied,
          "connection: its client is not one of this daemon's any more (expected one of its "
          "clients file)",
          peer.mark.starts_with("key:") ? "its key was taken out or has expired"
                                        : "its user was taken out or has expired"};
}

wire::Error error_of(const Status& status) {
  return {std::string(code_name(status.code())), status.message(), status.hint()};
}

}  // namespace

bool ServerLoop::known(Peer& peer, std::string_view id, int fd) {
  peer.principal = options_.authority->find(peer.mark);
  if (peer.principal != nullptr) return true;
  const Status status = no_client(peer);
  record(audit_entry(peer, "", Json::object()), status);
  refuse(peer, id, error_of(status));
  if (fd >= 0) cut_off_later(peer.port, fd);
  return false;
}

bool ServerLoop::allowed(const Peer& peer, const wire::Request& request, const AuditEntry& entry) {
  const Status status = check_role(*peer.principal, rule_of(request.call));
  if (status.ok()) return true;
  record(entry, status);
  refuse(peer, request.id, error_of(status));
  return false;
}

void ServerLoop::refuse(const Peer& peer, std::string_view id, const wire::Error& error) {
  ++counters_.refused;
  log::debug("request_refused",
             {{"endpoint", peer.port == 0 ? "serve" : "control"}, {"code", error.code}});
  // A client that sends without reading loses such answers, not our memory.
  sockets_[peer.port]->send(peer, {wire::encode_error(id, error), nullptr, /*final=*/true});
}

void ServerLoop::carry_out(const Peer& peer, const wire::Request& request, AuditEntry entry) {
  if (std::holds_alternative<wire::Cancel>(request.call)) return answer_cancel(peer, request);
  if (std::holds_alternative<wire::CancelAny>(request.call)) {
    answer_cancel_any(peer, request);
  } else {
    answer_requests(peer, request);
  }
  // Requests that are cancelled are no state: nobody waits for their record.
  record(std::move(entry), {});
}

AuditEntry ServerLoop::audit_entry(const Peer& peer, std::string_view call, Json arguments) const {
  AuditEntry entry;
  entry.time = std::chrono::system_clock::now();
  entry.principal = peer.principal == nullptr ? peer.mark : peer.principal->name;
  entry.peer = peer.address;
  entry.endpoint = peer.port == 0 ? "serve" : "control";
  entry.call = call;
  entry.arguments = std::move(arguments);
  if (options_.epoch) entry.epoch_before = options_.epoch();
  return entry;
}

void ServerLoop::record(AuditEntry entry, const Status& outcome, std::function<void()> then) const {
  if (options_.audit == nullptr) {
    if (then) then();
    return;
  }
  entry.result = code_name(outcome.code());
  entry.message = outcome.message();
  if (options_.epoch) entry.epoch_after = options_.epoch();
  entry.ms =
      std::chrono::duration<double, std::milli>(std::chrono::system_clock::now() - entry.time)
          .count();
  if (then) return options_.audit->append(entry, std::move(then));
  options_.audit->append(entry);
}

/// A control call that could not be read: that somebody tried is worth a line.
void ServerLoop::record_unread(const Peer& peer, const wire::Error& error) const {
  if (options_.audit == nullptr) return;
  AuditEntry entry = audit_entry(peer, "", Json::object());
  entry.result = error.code;
  entry.message = error.message;
  entry.epoch_after = entry.epoch_before;
  options_.audit->append(entry);
}

Status ServerLoop::review(const Live& live, PrincipalPtr* now) const {
  *now = options_.authority->find(live.peer().mark);
  if (*now == nullptr) return no_client(live.peer());
  return check_role(**now, kCallRules[live.call_index]);
}

void ServerLoop::leave(const std::shared_ptr<Live>& live) {
  if (!kCallRules[live->call_index].change) return;
  std::erase_if(left_, [](const auto& known) { return known.expired(); });
  left_.push_back(live);
}

void ServerLoop::review_rights() {
  PrincipalPtr now;
  for (auto& [key, client] : clients_) {
    for (auto& [id, live] : client.live) {
      Status status = review(*live, &now);
      if (status.ok()) {
        live->entitle(now->modules);
      } else if (key.first == 0) {
        live->deny(std::move(status));
      } else {
        live->withdraw(std::move(status));
      }
    }
  }
  for (const auto& left : left_) {
    const auto live = left.lock();
    if (live == nullptr) continue;
    if (Status status = review(*live, &now); !status.ok()) live->withdraw(std::move(status));
  }
  for (const auto& [key, peer] : connections_) {
    if (options_.authority->find(peer.mark) == nullptr) cut_off_later(key.first, key.second);
  }
}

void ServerLoop::cut_off_later(size_t port, int fd) {
  const bool known = std::any_of(cuts_.begin(), cuts_.end(),
                                 [&](const Cut& cut) { return cut.port == port && cut.fd == fd; });
  if (!known) cuts_.push_back({port, fd, Clock::now() + options_.last_word});
}

void ServerLoop::cut_off() {
  const auto now = Clock::now();
  std::erase_if(cuts_, [&](const Cut& cut) {
    if (now < cut.at) return false;
    log::info("connection_cut_off",
              {{"endpoint", cut.port == 0 ? "serve" : "control"}, {"fd", cut.fd}});
    sockets_[cut.port]->hang_up(cut.fd);
    return true;
  });
}

}  // namespace chimera
