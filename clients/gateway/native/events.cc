#include "clients/gateway/native/events.h"

#include <chrono>
#include <utility>

#include "base/json/json.h"

namespace chimera::gateway::native {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{1000};
// A line now and then keeps what lies between from taking the connection for dead.
constexpr int kQuietLooks = 15;

}  // namespace

struct Events::Look {
  Json modules, epochs;
  std::string failure;
  int left = 2;
};

void Events::listen(std::shared_ptr<Exchange> exchange, std::shared_ptr<void> slot) {
  exchange->begin({.content_type = "text/event-stream; charset=utf-8",
                   .body = changes_.begun() && looking_ ? changes_.state() : ": welcome\n\n",
                   .headers = {{"cache-control", "no-store"}, {"x-accel-buffering", "no"}}});
  if (ended_) return exchange->finish();
  exchange->on_gone([weak = weak_from_this(), gone = exchange.get()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    std::erase_if(self->listeners_, [gone](const auto& one) { return one.exchange.get() == gone; });
  });
  listeners_.push_back({std::move(exchange), std::move(slot)});
  if (std::exchange(looking_, true)) return;
  changes_ = {};  // nobody listened: what is now is the beginning
  look();
}

void Events::end() {
  ended_ = true;
  for (const auto& listener : std::exchange(listeners_, {})) listener.exchange->finish();
}

void Events::keep(const std::function<bool(const Request&)>& may) {
  for (const auto& listener : std::exchange(listeners_, {})) {
    if (may(listener.exchange->request())) {
      listeners_.push_back(listener);
    } else {
      listener.exchange->finish();
    }
  }
}

void Events::look() {
  const auto look = std::make_shared<Look>();
  const auto took = [weak = weak_from_this(), look](Json Look::*member) {
    return [weak, look, member](client::Result<client::Event> event) {
      if (!event.ok()) {
        look->failure = event.error().message;
      } else if (event->is_error()) {
        look->failure = event->error().message;
      } else {
        (*look).*member = std::move(event->body);
      }
      const auto self = weak.lock();
      if (--look->left == 0 && self != nullptr) self->looked(*look);
    };
  };
  daemon_.send(wire::Modules{}, took(&Look::modules));
  daemon_.send(wire::Epochs{}, took(&Look::epochs));
}

void Events::looked(const Look& look) {
  if (!look.failure.empty()) {
    tell(changes_.away(look.failure));
  } else {
    const bool begins = !changes_.begun();
    const std::string changes = changes_.look(look.modules, look.epochs);
    tell(begins ? changes + changes_.state() : changes);
  }
  if (listeners_.empty()) {
    looking_ = false;
    return;
  }
  daemon_.after(kBetweenLooks, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->look();
  });
}

void Events::tell(const std::string& bytes) {
  if (bytes.empty() && ++quiet_ < kQuietLooks) return;
  quiet_ = 0;
  // One that is cut off by this takes itself out of the list.
  const auto listeners = listeners_;
  for (const auto& listener : listeners)
    listener.exchange->write(bytes.empty() ? ": nothing new\n\n" : bytes);
}

}  // namespace chimera::gateway::native
