// chimera-gateway: options -> configuration -> objects in dependency order -> run -> destroy in
// reverse.
#include <sys/resource.h>

#include <iostream>

#include "base/log/log.h"
#include "base/log/readiness.h"
#include "base/standard_output.h"
#include "clients/gateway/config/config.h"
#include "clients/gateway/options.h"
#include "clients/gateway/service.h"
#include "clients/gateway/startup.h"
#include "clients/gateway/stop.h"

namespace chimera::gateway {
namespace {

constexpr int kFailed = 1, kWrongUsage = 2;

int fail(const Status& status, int exit_status = kFailed) {
  std::cerr << "chimera-gateway: " << status.to_string() << '\n';
  return exit_status;
}

/// Connections are descriptors; the soft limit is a courtesy to programs that use select().
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Status serve(GatewayConfig config, StopSignals& signals) {
  CHIMERA_RETURN_IF_ERROR(fill_defaults(&config));
  auto keys = load_keys(config);
  if (!keys.ok()) return keys.status();
  auto server = Server::create(
      {.address = config.address, .port = config.port, .tls = config.tls, .limits = config.http});
  if (!server.ok()) return server.status();
  Service service(config, std::move(*keys), **server);
  signals.start(
      {.drain =
           [&] {
             log::info("draining");
             service.drain();
             (*server)->drain();
           },
       .stop = [&] { (*server)->stop(); },
       .reload =
           [&] {
             auto read = load_keys(config);
             if (!read.ok()) {
               return log::error("keys_not_read", {{"reason", read.status().to_string()}});
             }
             log::info("keys_read", {{"keys", read->size()}});
             service.set_keys(std::move(*read));
           }},
      config.drain);
  greet(config, (*server)->port());
  log::info("ready", {{"address", config.address}, {"port", (*server)->port()}});
  tell_ready();
  (*server)->run(service.handlers());
  signals.stop();
  log::info("stopped");
  return {};
}

int run(int argc, char** argv) {
  const auto options = parse_options(argc, argv);
  if (!options.ok()) return fail(options.status(), kWrongUsage);
  if (!options->answer.empty()) return std::cout << options->answer, 0;
  if (!options->new_key.empty()) {
    const Status status = print_new_key(options->new_key);
    return status.ok() ? 0 : fail(status);
  }
  GatewayConfig config;
  if (!options->config.empty()) {
    auto read = read_config(options->config);
    if (!read.ok()) return fail(read.status());
    config = std::move(*read);
  }
  if (options->check) {
    if (!config.api_keys.empty()) {
      const auto keys = read_keys(config.api_keys);
      if (!keys.ok()) return fail(keys.status());
    }
    return std::cout << "ok\n", 0;
  }
  StopSignals signals;
  raise_descriptor_limit();
  log::init(options->log_level, options->log_format);
  const Status status = serve(std::move(config), signals);
  return status.ok() ? 0 : fail(status);
}

}  // namespace
}  // namespace chimera::gateway

int main(int argc, char** argv) {
  chimera::guard_standard_streams();
  return chimera::finish_output("chimera-gateway", chimera::gateway::run(argc, argv));
}
