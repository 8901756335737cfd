// What each call of the protocol does. Runs on the IO thread unless a function posts to a worker.
//
// Thread safety: handlers run on the IO thread or a worker; what they share is atomic, constant, or
// says so itself.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "clients/wire/protocol.h"
#include "daemon/server/answers/live.h"
#include "daemon/server/answers/routing_window.h"
#include "daemon/server/loop.h"
#include "daemon/server/server.h"
#include "daemon/server/worker.h"
#include "text/constraint/cache.h"

namespace chimera {

/// Everything the handlers share. The workers come last: they stop before the rest goes.
struct CallContext {
  explicit CallContext(ServerOptions server_options);

  ServerOptions options;
  std::optional<int32_t> score_prefix;  // token put before scored texts
  constraint::ConstraintCache constraints;
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};
  RoutingWindow routing;    // of the worker `queries`
  ServerCounters counters;  // kept by the loop, shown by `stats`

  Worker texts{"chimera-text", 256};     // long texts to tokens
  Worker queries{"chimera-query", 64};   // reads of the registry
  Worker changes{"chimera-change", 64};  // hands changes over to the registry, in their order
  Worker plans{"chimera-plan", 16};      // each may read a checkpoint's header
  Worker probes{"chimera-probe", 16};    // plans that load from disk
  Worker drains{"chimera-drain", 8};
  Worker proofs{"chimera-proof", 64};  // wait for what was revoked to be gone
};

/// Answers any call but those that are about other requests (`cancel`, `requests`). `live` gets
/// exactly one final event, now or later.
void handle_call(CallContext& context, std::shared_ptr<Live> live, wire::Call call);

// The calls of the serve endpoint (serve.cc).
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Generate call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Chat call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Score call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Embed call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Tokenize call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Detokenize call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Info call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Health call);

/// Answers with what a change did, or was refused for. `what`: the module, path or epoch that it
/// was about; `fields` are put beside.
void reply_change(const std::shared_ptr<Live>& live, std::string_view call, std::string_view what,
                  const Result<ChangeReport>& report, Json fields = Json::object());

// The calls of the control endpoint (control.cc; revocation.cc).
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Modules call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Load call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Unload call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Revoke call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Plan call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Apply call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Rollback call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Epochs call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Routing call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Bias call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Blend call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Canary call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Promote call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Abort call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Enable call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Disable call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Stats call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Audit call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Usage call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Drain call);
void handle(CallContext& context, std::shared_ptr<Live> live, wire::Shutdown call);

}  // namespace chimera
