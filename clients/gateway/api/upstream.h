// The daemon as the loop of the server sees it.
//
// Thread safety: by the thread of the loop; so are the callbacks.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "chimera_client/async_client.h"

namespace chimera::gateway {

class Upstream {
 public:
  using OnEvent = client::AsyncClient::OnEvent;
  /// Brings work to the loop, from any thread.
  using Post = std::function<void(std::function<void()>)>;
  /// The same from the loop, after a while.
  using After = std::function<void(std::chrono::milliseconds, std::function<void()>)>;

  Upstream(client::Options options, Post post, After after)
      : post_(std::move(post)), after_(std::move(after)), client_(std::move(options)) {}

  /// Asks the daemon; its events come to `on_event`, the last of them is final (AsyncClient).
  /// `traceparent`: of the request that it is asked for; "": of none.
  std::string send(const wire::Call& call, OnEvent on_event, const std::string& traceparent = {});
  void cancel(const std::string& id) { client_.cancel(id); }
  /// Calls `work` later, for what the daemon had no room for.
  void after(std::chrono::milliseconds delay, std::function<void()> work) const {
    after_(delay, std::move(work));
  }

 private:
  const Post post_;
  const After after_;
  client::AsyncClient client_;  // last: its thread ends before what it calls goes
};

}  // namespace chimera::gateway
