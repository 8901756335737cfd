// What the gateway answers: who may ask, which API a path belongs to, and whether all is well.
//
// Lifetime: the configuration and the server outlive it; destroy it after Server::run() has
// returned and before the server. Thread safety: by the thread of the server's loop; set_keys()
// from any.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <variant>

#include "clients/gateway/access/keys.h"
#include "clients/gateway/api/caller.h"
#include "clients/gateway/api/upstream.h"
#include "clients/gateway/config/config.h"
#include "clients/gateway/http/server.h"
#include "clients/gateway/metrics/metrics.h"
#include "clients/gateway/native/events.h"
#include "clients/gateway/run/dialects.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway {

class Service {
 public:
  Service(const GatewayConfig& config, Keys keys, Server& server);

  HttpHandlers handlers();
  /// Takes over other keys; requests in progress go on, but for streams of events: who may not
  /// observe any more hears nothing more.
  void set_keys(Keys keys);
  /// /readyz says no from now on.
  void drain();

 private:
  /// What a path leads to.
  struct Door {
    std::string_view path;  // "/v1/models/" leads to all below it
    std::string_view method;
    std::optional<Right> right;  // none: for everybody
    void (Service::*answer)(std::shared_ptr<Exchange>);
  };
  std::variant<const Door*, ApiError> door_of(const Request& request) const;
  static std::string route_of(const std::variant<const Door*, ApiError>& door,
                              const Request& request);

  Admission admit(const Request& head);
  std::optional<ApiError> check(const Request& head) const;
  std::optional<ApiError> check_right(const Request& head, Right right) const;
  std::shared_ptr<const Principal> principal_of(const Request& request) const;

  void handle(std::shared_ptr<Exchange> exchange);
  std::variant<Job, ApiError> read_job(const Request& request) const;
  void complete(std::shared_ptr<Exchange> exchange);
  void models(std::shared_ptr<Exchange> exchange);
  void native_call(std::shared_ptr<Exchange> exchange);
  void listen(std::shared_ptr<Exchange> exchange);
  void console(std::shared_ptr<Exchange> exchange);
  void ready(std::shared_ptr<Exchange> exchange);
  void alive(std::shared_ptr<Exchange> exchange);
  void metrics(std::shared_ptr<Exchange> exchange);

  Caller caller_of(const Request& request) const;
  /// A place among the streams of the principal; null when all are taken.
  std::shared_ptr<void> take_slot(const Principal& principal);

  const GatewayConfig& config_;
  Server& server_;
  std::shared_ptr<const Principal> anonymous_;  // null: nobody
  Keys keys_;
  std::map<std::string, std::shared_ptr<int64_t>> streams_;  // in progress, by principal
  bool draining_ = false;
  Dialects dialects_;
  const std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  std::unique_ptr<Upstream> daemon_;  // after what its callbacks use
  std::shared_ptr<native::Events> events_;
};

}  // namespace chimera::gateway
