// GET /chimera/v1/events: those who listen to what happens at the daemon. While somebody does, it
// is looked at once a second, however many they are.
//
// Thread safety: none; by the thread of the server's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/api/upstream.h"
#include "clients/gateway/http/exchange.h"
#include "clients/gateway/native/changes.h"

namespace chimera::gateway::native {

class Events : public std::enable_shared_from_this<Events> {
 public:
  /// `daemon` outlives it, or the loop has ended.
  explicit Events(Upstream& daemon) : daemon_(daemon) {}

  /// Answers with a stream that ends with its client, or with the gateway. `slot` is held while it
  /// lasts.
  void listen(std::shared_ptr<Exchange> exchange, std::shared_ptr<void> slot);
  /// Ends the streams of all who may not listen any more.
  void keep(const std::function<bool(const Request&)>& may);
  /// Ends all streams, and those to come: the gateway stops.
  void end();

 private:
  struct Look;
  struct Listener {
    std::shared_ptr<Exchange> exchange;
    std::shared_ptr<void> slot;
  };
  void look();
  void looked(const Look& look);
  void tell(const std::string& bytes);

  Upstream& daemon_;
  Changes changes_;
  std::vector<Listener> listeners_;
  bool looking_ = false, ended_ = false;
  int quiet_ = 0;  // looks since something was told
};

}  // namespace chimera::gateway::native
