#include "clients/gateway/api/upstream.h"

namespace chimera::gateway {

std::string Upstream::send(const wire::Call& call, OnEvent on_event,
                           const std::string& traceparent) {
  const auto shared = std::make_shared<OnEvent>(std::move(on_event));
  const auto bring = [this, shared](client::Result<client::Event> event) {
    post_([shared, event = std::move(event)]() mutable { (*shared)(std::move(event)); });
  };
  return client_.send(call, bring, traceparent);
}

}  // namespace chimera::gateway
