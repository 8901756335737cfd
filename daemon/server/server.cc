#include "daemon/server/server.h"

#include <sys/resource.h>

#include <algorithm>

#include "daemon/engine/score_text.h"
#include "daemon/server/calls.h"
#include "daemon/server/loop.h"

namespace chimera {

CallContext::CallContext(ServerOptions server_options)
    : options(std::move(server_options)),
      score_prefix(score_prefix_token(options.model.tokenizer.get(), options.model_config())),
      constraints(options.model.tokenizer, options.model_config().vocab_size,
                  options.model_config().eos_token_ids) {}

void handle_call(CallContext& context, std::shared_ptr<Live> live, wire::Call call) {
  live->turn = context.options.registry->take_turn();
  std::visit(
      [&](auto&& one) {
        using T = std::decay_t<decltype(one)>;
        // These are answered by the loop, which knows what is live.
        if constexpr (!std::is_same_v<T, wire::Cancel> && !std::is_same_v<T, wire::CancelAny> &&
                      !std::is_same_v<T, wire::Requests>) {
          handle(context, std::move(live), std::move(one));
        }
      },
      std::move(call));
}

namespace {

/// A connection takes three descriptors: the peer's, the front's to libzmq, libzmq's. A quarter of
/// all, 256 at most, is for models, modules and plugin hosts.
size_t connection_budget() {
  rlimit limit{};
  constexpr rlim_t kLeast = 16, kMost = 8192, kReserve = 256, kEach = 3;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kLeast;
  const rlim_t free = limit.rlim_cur - std::min(limit.rlim_cur / 4, kReserve);
  return std::clamp(free / kEach, kLeast, kMost);
}

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions options) : context(std::move(options)) {}

  CallContext context;
  std::unique_ptr<ServerLoop> loop;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options) {
  const DeploymentConfig& config = *options.config;
  ServerLoop::Options loop_options;
  loop_options.serve_endpoint = config.serve.endpoint;
  loop_options.control_endpoint = config.control.endpoint;
  loop_options.other_users = options.authority->admits_other_users();
  loop_options.serve_insecure = config.serve.insecure;
  loop_options.secret_key = options.secret_key;
  loop_options.private_directory = config.state_dir + "/sockets";
  loop_options.max_connections = connection_budget();
  loop_options.authority = options.authority;
  loop_options.audit = options.audit;
  loop_options.epoch = [engine = options.engine] { return engine->current().epoch; };
  loop_options.cancel_job = [registry = options.registry](const std::string& id) {
    return registry->cancel(id);
  };
  loop_options.live_per_client = kMaxLivePerClient;
  loop_options.queued_per_request = static_cast<size_t>(config.serve.max_events);

  auto impl = std::make_unique<Impl>(std::move(options));
  auto loop =
      ServerLoop::start(std::move(loop_options), impl->context.counters,
                        [context = &impl->context](std::shared_ptr<Live> live, wire::Call call) {
                          handle_call(*context, std::move(live), std::move(call));
                        });
  if (!loop.ok()) return loop.status();
  impl->loop = std::move(loop).value();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() {
  CallContext& context = impl_->context;
  context.draining = true;
  context.stopping = true;
  // Workers first: their last answers still go out through the loop.
  for (Worker* worker : {&context.texts, &context.queries, &context.changes, &context.plans,
                         &context.probes, &context.drains, &context.proofs}) {
    worker->stop();
  }
  impl_->loop->stop();
}

void Server::drain() { impl_->context.draining = true; }

bool Server::await_records(std::chrono::milliseconds timeout) const {
  return impl_->loop->await_records(timeout);
}

}  // namespace chimera
