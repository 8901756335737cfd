#include "daemon/server/admission.h"

#include <chrono>
#include <string>
#include <utility>

#include "base/log/log.h"
#include "daemon/security/zap.h"

namespace chimera {
namespace {

// A peer that is refused tries again ten times a second, and may mean to.
constexpr std::chrono::seconds kLogInterval{1};

std::string mark_of(const FrontPeer& peer, KnownBy kind) {
  switch (kind) {
    case KnownBy::kKey:
      return "";
    case KnownBy::kUser:
      return peer.uid ? uid_mark(*peer.uid) : "";
    case KnownBy::kLoopback:
      return std::string(kLoopbackMark);
  }
  return "";
}

}  // namespace

std::function<std::optional<ReadyProperties>(const FrontPeer&)> admission(
    const Authority& authority, std::vector<KnownBy> kinds) {
  return [&authority, kinds = std::move(kinds), next_log = std::chrono::steady_clock::time_point(),
          refused = uint64_t{0}](const FrontPeer& peer) mutable -> std::optional<ReadyProperties> {
    const KnownBy kind = kinds[peer.endpoint];
    if (kind == KnownBy::kKey) return ReadyProperties{};
    std::string mark = mark_of(peer, kind);
    if (authority.find(mark) != nullptr) {
      return ReadyProperties{{kRoutingIdProperty, new_routing_id()},
                             {kMarkProperty, std::move(mark)}};
    }
    ++refused;
    if (const auto now = std::chrono::steady_clock::now(); now >= next_log) {
      next_log = now + kLogInterval;
      log::warning("connection_refused", {{"peer", peer.address},
                                          {"reason", "no client of this daemon"},
                                          {"refused_since_last_told", refused}});
      refused = 0;
    }
    return std::nullopt;
  };
}

}  // namespace chimera
