// The asynchronous face of the C++ client: any number of requests at once, one thread for all.
//
//   chimera::client::AsyncClient client({});
//   auto id = client.send(request, [&](Result<Event> event) { … });   // of each event
//   client.cancel(id);
//
// The daemon bounds the requests of one connection, so the client opens further connections as it
// needs them. A request whose connection is lost ends with `unavailable`; the next one connects
// anew.
//
// Invariants: (1) after send() the callback gets events in their order, and last exactly one that
// is final: a `done`, an `error`, or no event but the Error that explains its absence; (2) no
// callback runs during or after the destructor; (3) nothing here waits for the daemon.
//
// Thread safety: send() and cancel() from any thread, callbacks on the client's own, one at a time;
// they must not block, and may send and cancel.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "chimera_client/client.h"

namespace chimera::client {

class AsyncClient {
 public:
  using OnEvent = std::function<void(Result<Event>)>;

  explicit AsyncClient(Options options);
  /// Ends what is in progress (the daemon notices the connections' end); calls nobody.
  ~AsyncClient();
  AsyncClient(const AsyncClient&) = delete;
  AsyncClient& operator=(const AsyncClient&) = delete;

  const std::string& endpoint(wire::Endpoint which) const;

  /// Sends a request and returns its id. `traceparent`: of W3C Trace Context, version 00; "": none.
  std::string send(const wire::Call& call, OnEvent on_event, const std::string& traceparent = {});
  /// Ends a request of this client, if it is still in progress: it is answered with what the daemon
  /// says of its end.
  void cancel(const std::string& id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera::client
