// chimerad: options -> deployment -> objects in dependency order -> run -> destroy in reverse.
#include <chrono>
#include <iostream>

#include "base/log/log.h"
#include "base/log/readiness.h"
#include "base/standard_output.h"
#include "daemon/check.h"
#include "daemon/guard.h"
#include "daemon/mapping_watch.h"
#include "daemon/memory_plan.h"
#include "daemon/model/loaded_backbone.h"
#include "daemon/options.h"
#include "daemon/registry/first_epoch.h"
#include "daemon/registry/watch.h"
#include "daemon/reload.h"
#include "daemon/server/server.h"
#include "daemon/shutdown.h"
#include "daemon/signals.h"
#include "daemon/startup.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;

// How long a change waits for sequences on old epochs.
constexpr std::chrono::seconds kPublishTimeout{30};

constexpr int kFailed = 1, kWrongUsage = 2;

int fail(const Status& status, int exit_status = kFailed) {
  std::cerr << "chimerad: " << status.to_string() << '\n';
  return exit_status;
}

Status serve(DeploymentConfig config, Signals& signals, Clock::time_point started) {
  CHIMERA_RETURN_IF_ERROR(fill_defaults(&config));
  const auto locks = lock_endpoints(config);
  if (!locks.ok()) return locks.status();
  const auto store = StateStore::open(config.state_dir, Env::system());
  if (!store.ok()) return store.status();
  log_findings(**store);
  auto guard = make_guard(config);
  if (!guard.ok()) return guard.status();
  MemoryPlan memory(&config);
  CHIMERA_RETURN_IF_ERROR(memory.check_model());
  const auto model = load_backbone(config, config.state_dir);
  if (!model.ok()) return model.status();
  log_findings(config, *model);
  const MappingWatch mapped_files;
  EngineOptions options = engine_options(config);
  CHIMERA_RETURN_IF_ERROR(memory.take(*model, options));
  ModuleLoader loader(*model, library_runtime(config), &memory.ledger(), guard->accept(),
                      memory.adapters());
  auto first = first_epoch(&loader, store->get(), config.composition);
  if (!first.ok()) return first.status();
  options.kv_bytes = memory.settle_cache(*model, options);
  options.adapters = memory.adapters();
  auto engine = Engine::create(model->backbone, model->tokenizer, std::move(first->table), options);
  if (!engine.ok()) return engine.status();
  Registry registry({&loader, store->get(), engine->get(), kPublishTimeout, config.canary},
                    std::move(*first));
  auto server = Server::start({.config = &config,
                               .engine = engine->get(),
                               .registry = &registry,
                               .model = *model,
                               .authority = guard->authority.get(),
                               .audit = guard->audit.get(),
                               .meters = {guard->budget.get(), guard->usage.get()},
                               .secret_key = guard->secret_key,
                               .signer = guard->signer ? &*guard->signer : nullptr,
                               .memory = &memory.ledger(),
                               .on_shutdown = [&signals] { signals.request_stop(); }});
  if (!server.ok()) return server.status();
  auto watcher = Watcher::start(config.watch, Watcher::actions_of(&registry));
  if (!watcher.ok()) return watcher.status();

  log_ready(config, **engine, Clock::now() - started);
  tell_ready();
  ReceivedSignal signal = signals.wait();
  for (; signal.wish == Wish::kReload; signal = signals.wait())
    reload(&config, watcher->get(), *guard);
  log::info("draining", {{"signal", signal.name}});
  const bool drained = drain(**server, **engine, signals);
  signals.exit_within(drained ? kStopLimit : std::chrono::seconds(1), drained ? 0 : 1);
  registry.stop();  // first, so that no change runs on the engine while it goes
  watcher->reset();
  server->reset();
  log::info("stopped", {{"drained", drained}});
  return {};
}

int run(int argc, char** argv) {
  const auto started = Clock::now();
  const auto options = parse_options(argc, argv);
  if (!options.ok()) return fail(options.status(), kWrongUsage);
  if (!options->answer.empty()) return std::cout << options->answer, 0;
  auto config = read_deployment(options->config);
  if (!config.ok()) return fail(config.status());
  if (options->check) {
    std::string summary;
    const Status status = check_deployment(*config, &summary);
    std::cout << summary;
    return status.ok() ? 0 : fail(status);
  }
  prepare_process();
  Signals signals;
  log::init(options->log_level, options->log_format);
  const Status status = serve(std::move(*config), signals, started);
  return status.ok() ? 0 : fail(status);
}

}  // namespace
}  // namespace chimera

int main(int argc, char** argv) {
  chimera::guard_standard_streams();
  return chimera::finish_output("chimerad", chimera::run(argc, argv));
}
