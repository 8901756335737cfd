#include "chimera_client/client.h"

#include <fmt/format.h>
#include <zmq.h>

#include <array>
#include <cstring>

#include "chimera_client/connection.h"
#include "clients/wire/endpoints.h"

namespace chimera::client {
namespace {

// A cancelled request ends within a step; a daemon that does not say so in this time is stuck.
constexpr Milliseconds kCancelWait{2000};

Error unexpected_answer(const std::exception& problem) {
  return {"internal", fmt::format("answer: {}", problem.what()),
          "client and daemon may be of different versions"};
}

Generation parse_generation(const Json& done) {
  Generation out;
  out.finish_reason = done.at("finish_reason");
  const Json& usage = done.at("usage");
  out.prompt_tokens = usage.at("prompt_tokens");
  out.completion_tokens = usage.at("completion_tokens");
  out.cached_tokens = usage.at("cached_tokens");
  const Json& timing = done.at("timing");
  out.queue_ms = timing.at("queue_ms");
  out.prefill_ms = timing.at("prefill_ms");
  out.decode_ms = timing.at("decode_ms");
  out.provenance = parse_provenance(done);
  out.done = done;
  return out;
}

ScoreResult parse_score(const Event& event) {
  const Json& done = event.body;
  ScoreResult out;
  if (!done.at("bits_per_byte").is_null()) out.bits_per_byte = done.at("bits_per_byte");
  out.nats = done.at("nats");
  out.count = done.at("count");
  out.logprobs = done.at("logprobs").get<std::vector<float>>();
  out.provenance = parse_provenance(done);
  if (done.contains("logits")) {
    out.rows = done.at("logits").at("shape").at(0);
    out.vocab = done.at("logits").at("shape").at(1);
    out.logits.resize(event.binary.size() / sizeof(float));
    // float32 little-endian on the wire, as every machine Chimera runs on stores it.
    std::memcpy(out.logits.data(), event.binary.data(), out.logits.size() * sizeof(float));
  }
  out.done = done;
  return out;
}

Token parse_token(const Json& body) {
  Token token;
  token.text = body.at("text");
  token.id = body.at("token");
  token.epoch = body.at("epoch");
  if (body.contains("logprob")) token.logprob = body.at("logprob");
  return token;
}

}  // namespace

struct Client::Impl {
  explicit Impl(const Options& options)
      : endpoints{options.serve.empty() ? wire::default_serve_endpoint() : options.serve,
                  options.control.empty() ? wire::default_control_endpoint() : options.control} {
    for (size_t i = 0; i < 2; ++i) {
      connections[i] = std::make_unique<Connection>(context, endpoints[i], options.connect_timeout);
    }
  }
  ~Impl() {
    for (auto& connection : connections) connection.reset();
    zmq_ctx_term(context);
  }
  Connection& connection(wire::Endpoint which) { return *connections[static_cast<size_t>(which)]; }

  void* context = zmq_ctx_new();
  std::array<std::string, 2> endpoints;
  std::array<std::unique_ptr<Connection>, 2> connections;
  uint64_t last_id = 0;
};

std::string Event::id() const {
  const auto it = body.find("id");
  return it != body.end() && it->is_string() ? it->get<std::string>() : "";
}

Error Event::error() const {
  return {body.value("code", "internal"), body.value("message", ""), body.value("hint", "")};
}

Provenance parse_provenance(const Json& done) {
  Provenance out;
  const Json& from = done.at("provenance");
  out.epoch = from.at("epoch");
  out.composition = from.at("composition");
  for (const auto& [name, module] : from.at("modules").items()) {
    out.modules[name] = {module.at("version"), module.at("digest"), module.at("share")};
  }
  if (from.contains("backbone")) out.backbone_share = from.at("backbone").value("share", 0.0);
  return out;
}

Client::Client(Options options) : impl_(std::make_unique<Impl>(options)) {}
Client::~Client() = default;

const std::string& Client::endpoint(wire::Endpoint which) const {
  return impl_->endpoints[static_cast<size_t>(which)];
}

Result<std::string> Client::send(const wire::Call& call) {
  const std::string id = fmt::format("c{}", ++impl_->last_id);
  auto& connection = impl_->connection(wire::endpoint_of(call));
  if (auto error = connection.send(wire::encode_request({id, call}))) return *error;
  return id;
}

Result<Event> Client::receive(wire::Endpoint which, std::optional<Milliseconds> timeout,
                              const Interrupt& interrupt) {
  return impl_->connection(which).receive([](const Event&) { return true; }, timeout, interrupt);
}

Result<Event> Client::receive_for(const std::string& id, wire::Endpoint which,
                                  std::optional<Milliseconds> timeout, const Interrupt& interrupt) {
  // An error without an id answers a request that could not be read: ours, as we are waiting.
  const auto wanted = [&](const Event& event) { return event.id() == id || event.id().empty(); };
  return impl_->connection(which).receive(wanted, timeout, interrupt);
}

Result<Event> Client::call(const wire::Call& call, std::optional<Milliseconds> timeout) {
  const auto id = send(call);
  if (!id.ok()) return id.error();
  while (true) {
    auto event = receive_for(*id, wire::endpoint_of(call), timeout);
    if (!event.ok()) return event;
    if (event->is_error()) return event->error();
    if (event->is_final()) return event;
  }
}

Result<Generation> Client::generate(const wire::Generate& request,
                                    const std::function<void(const Token&)>& on_token,
                                    const Interrupt& interrupt) {
  return run(request, on_token, interrupt);
}

Result<Generation> Client::chat(const wire::Chat& request,
                                const std::function<void(const Token&)>& on_token,
                                const Interrupt& interrupt) {
  return run(request, on_token, interrupt);
}

Result<Generation> Client::run(const wire::Call& call,
                               const std::function<void(const Token&)>& on_token,
                               const Interrupt& interrupt) {
  const auto id = send(call);
  if (!id.ok()) return id.error();
  try {
    return finish_generation(*id, on_token, interrupt);
  } catch (const nlohmann::json::exception& problem) {
    return unexpected_answer(problem);
  }
}

Result<Generation> Client::finish_generation(const std::string& id,
                                             const std::function<void(const Token&)>& on_token,
                                             const Interrupt& interrupt) {
  std::string text;
  std::vector<int32_t> tokens;
  bool cancelled = false;
  while (true) {
    auto event = receive_for(id, wire::Endpoint::kServe,
                             cancelled ? std::optional(kCancelWait) : std::nullopt,
                             cancelled ? Interrupt() : interrupt);
    if (!event.ok() && event.error().code == "cancelled" && !cancelled) {
      cancelled = true;
      const auto sent = send(wire::Cancel{id});
      if (!sent.ok()) return sent.error();
      continue;
    }
    if (!event.ok()) return event.error();
    if (event->is_error()) return event->error();
    if (event->is_final()) {
      Generation out = parse_generation(event->body);
      out.text = event->body.value("text", text);
      out.tokens = event->body.value("tokens", tokens);
      return out;
    }
    const Token token = parse_token(event->body);
    text += token.text;
    tokens.push_back(token.id);
    if (on_token && !cancelled) on_token(token);
  }
}

Result<ScoreResult> Client::score(const wire::Score& request) {
  const auto event = call(request);
  if (!event.ok()) return event.error();
  try {
    return parse_score(*event);
  } catch (const nlohmann::json::exception& problem) {
    return unexpected_answer(problem);
  }
}

}  // namespace chimera::client
