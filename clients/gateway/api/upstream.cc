#include "clients/gateway/api/upstream.h"

namespace chimera::gateway {

std::string Upstream::send(const wire::Call& call, OnEvent on_event) {
  const auto shared = std::make_shared<OnEvent>(std::move(on_event));
  return client_.send(call, [this, shared](client::Result<client::Event> event) {
    post_([shared, event = std::move(event)]() mutable { (*shared)(std::move(event)); });
  });
}

}  // namespace chimera::gateway
