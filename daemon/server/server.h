// The ZeroMQ front of the daemon: two ROUTER sockets speaking chimera/1 (clients/PROTOCOL.md).
//
// One IO thread owns both sockets. It decodes requests, large ones on a thread beside it
// (decoding/decoder.h), hands generate, score and embed to the engine, and sends the events that
// the engine left in bounded queues. Control calls and long texts go to worker threads, so neither
// a load nor a 4 MiB prompt holds up a stream.
//
// Invariants: (1) every request that was read is answered by exactly one `done` or `error`, unless
// its client is gone, or it is a large one whose JSON has not been read a second after the server
// began to end; (2) nothing here blocks the engine: a client that reads too slowly loses its
// request, not the others their pace; (3) per client at most kMaxLivePerClient requests are live
// and per request at most serve.max_events events wait.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/memory/ledger.h"
#include "daemon/model/loaded_backbone.h"
#include "daemon/registry/registry.h"
#include "daemon/security/audit_log.h"
#include "daemon/security/authority.h"
#include "daemon/server/limits.h"

namespace chimera {

/// Pointers are borrowed and outlive the server; the callbacks too must stay callable that long.
struct ServerOptions {
  const DeploymentConfig* config = nullptr;
  Engine* engine = nullptr;
  Registry* registry = nullptr;
  LoadedBackbone model;
  Authority* authority = nullptr;
  AuditLog* audit = nullptr;
  Meters meters = {};
  std::string secret_key = {};              // of security.key, Z85; empty: none
  const StatementSigner* signer = nullptr;  // with that key; null: nothing is signed
  const Ledger* memory = nullptr;           // null: memory is not counted
  /// A client called `shutdown` (already answered). Must only signal, not destroy the server.
  std::function<void()> on_shutdown;
  /// A client called `drain`; new requests are refused from now on. May be empty.
  std::function<void()> on_drain = {};

  const ModelConfig& model_config() const { return model.backbone->config(); }
};

class Server {
 public:
  static constexpr size_t kMaxLivePerClient = 64;

  /// Binds both endpoints and starts serving. ipc sockets get mode 0600; an address that another
  /// daemon still answers on is refused (failed_precondition), a stale socket file is replaced.
  static Result<std::unique_ptr<Server>> start(ServerOptions options);
  /// Ends live requests as cancelled, sends what is queued for at most a second, then closes.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// From now on generate, chat, score and embed answer `unavailable`; live ones go on. Returns at
  /// once.
  void drain();
  /// ServerLoop::await_records: call it before the server goes, so that who asked for the last
  /// changes, and for the end itself, hears of them.
  bool await_records(std::chrono::milliseconds timeout) const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
