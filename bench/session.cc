#include "session.h"

#include <fmt/format.h>

#include <chrono>
#include <random>
#include <thread>

#include "stats.h"

namespace chimera::bench {
namespace {

client::Options options_of(const DaemonProcess& daemon) {
  client::Options options;
  options.serve = daemon.serve_endpoint();
  options.control = daemon.control_endpoint();
  options.key = daemon.key_file();
  options.server_key = daemon.server_key_file();
  return options;
}

}  // namespace

void fail(const client::Error& error) {
  throw std::runtime_error(fmt::format("{}: {}. {}", error.code, error.message, error.hint));
}

Session::Session(const DaemonProcess& daemon) : client_(options_of(daemon)) {}

Json Session::call(const wire::Call& call) {
  auto event = client_.call(call, std::chrono::seconds(60));
  if (!event.ok()) fail(event.error());
  return event->body;
}

double Session::wait_ready(double seconds) {
  const double deadline = now_s() + seconds;
  while (true) {
    const auto event = client_.call(wire::Health{}, std::chrono::milliseconds(500));
    if (event.ok()) return now_s();
    if (now_s() > deadline) fail(event.error());
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

int64_t Session::vocab() { return call(wire::Info{}).value("vocab", int64_t{0}); }

wire::Generate greedy_request(std::vector<int32_t> tokens, int64_t max_tokens) {
  wire::Generate request;
  request.prompt = std::move(tokens);
  request.max_tokens = max_tokens;
  request.temperature = 0.0;
  request.ignore_eos = true;
  return request;
}

std::vector<int32_t> prompt_of(int64_t length, int64_t vocab, uint32_t seed) {
  std::mt19937 rng(seed);
  std::uniform_int_distribution<int32_t> id(1, static_cast<int32_t>(vocab - 1));
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int32_t& t : tokens) t = id(rng);
  return tokens;
}

}  // namespace chimera::bench
