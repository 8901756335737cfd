#include "chimera_client/client.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>

#include "base/statement/canonical.h"
#include "chimera_client/answer.h"
#include "chimera_client/connection.h"
#include "clients/wire/endpoints.h"

namespace chimera::client {
namespace {

// A cancelled request ends within a step; a daemon that does not say so in this time is stuck.
constexpr Milliseconds kCancelWait{2000};

Generation parse_generation(const Json& done, std::optional<Error>& problem) {
  Generation out;
  Answer answer(done, problem);
  out.finish_reason = answer.text("finish_reason");
  Answer usage(answer.object("usage"), problem);
  out.prompt_tokens = usage.integer("prompt_tokens");
  out.completion_tokens = usage.integer("completion_tokens");
  out.cached_tokens = usage.integer("cached_tokens");
  Answer timing(answer.object("timing"), problem);
  out.queue_ms = timing.number("queue_ms");
  out.prefill_ms = timing.number("prefill_ms");
  out.decode_ms = timing.number("decode_ms");
  out.provenance = parse_provenance(done, problem);
  if (done.contains("receipt")) out.receipt = canonical_json(done["receipt"]);
  out.done = done;
  return out;
}

ScoreResult parse_score(const Event& event, std::optional<Error>& problem) {
  const Json& done = event.body;
  ScoreResult out;
  Answer answer(done, problem);
  out.bits_per_byte = done["bits_per_byte"].number();  // null when there are no bytes
  out.nats = answer.number("nats");
  out.count = answer.integer("count");
  out.logprobs = answer.numbers("logprobs");
  out.provenance = parse_provenance(done, problem);
  if (done.contains("receipt")) out.receipt = canonical_json(done["receipt"]);
  if (done.contains("logits")) {
    const Json& shape = Answer(done["logits"], problem).array("shape");
    out.rows = shape[0].integer().value_or(0);
    out.vocab = shape[1].integer().value_or(0);
    out.logits.resize(event.binary.size() / sizeof(float));
    // float32 little-endian on the wire, as every machine Chimera runs on stores it.
    std::memcpy(out.logits.data(), event.binary.data(), out.logits.size() * sizeof(float));
  }
  out.done = done;
  return out;
}

EmbedResult parse_embedding(const Json& done, std::optional<Error>& problem) {
  EmbedResult out;
  Answer answer(done, problem);
  out.embedding = answer.numbers("embedding");
  out.finish_reason = answer.text("finish_reason");
  out.prompt_tokens = Answer(answer.object("usage"), problem).integer("prompt_tokens");
  out.provenance = parse_provenance(done, problem);
  out.done = done;
  return out;
}

std::vector<TokenChoice> parse_choices(const Json& list, std::optional<Error>& problem) {
  std::vector<TokenChoice> out;
  for (const Json& item : list) {
    Answer answer(item, problem);
    out.push_back({.id = static_cast<int32_t>(answer.integer("token")),
                   .logprob = item["logprob"].number().value_or(-HUGE_VAL),
                   .text = item.value("text", "")});
  }
  return out;
}

Token parse_token(const Json& body, std::optional<Error>& problem) {
  Token token;
  Answer answer(body, problem);
  token.text = answer.text("text");
  token.id = static_cast<int32_t>(answer.integer("token"));
  token.epoch = answer.natural("epoch");
  token.logprob = body["logprob"].number();
  if (body.contains("top_logprobs")) {
    token.top = parse_choices(answer.array("top_logprobs"), problem);
  }
  if (body.contains("shares")) {
    Answer shares(answer.object("shares"), problem);
    for (const auto& [name, share] : body["shares"].items()) {
      token.shares[name] = shares.number(name);
    }
  }
  return token;
}

}  // namespace

struct Client::Impl {
  explicit Impl(const Options& options)
      : endpoints{options.serve.empty() ? wire::default_serve_endpoint() : options.serve,
                  options.control.empty() ? wire::default_control_endpoint() : options.control} {
    const KeyFiles files = key_files(options);
    for (size_t i = 0; i < 2; ++i) {
      connections[i] =
          std::make_unique<Connection>(context, endpoints[i], files, options.connect_timeout);
    }
  }
  Connection& connection(wire::Endpoint which) { return *connections[static_cast<size_t>(which)]; }

  Context context;  // outlives the connections
  std::array<std::string, 2> endpoints;
  std::array<std::unique_ptr<Connection>, 2> connections;
  /// Ids of different clients differ, so that one of them can be named in `cancel` from elsewhere.
  const uint32_t mark = std::random_device()();
  uint64_t last_id = 0;
};

std::string Event::id() const { return body.value("id", ""); }

Error Event::error() const {
  return {body.value("code", "internal"), body.value("message", ""), body.value("hint", "")};
}

Provenance parse_provenance(const Json& done, std::optional<Error>& problem) {
  Provenance out;
  const Json& from = Answer(done, problem).object("provenance");
  Answer answer(from, problem);
  out.epoch = answer.natural("epoch");
  out.composition = answer.text("composition");
  for (const auto& [name, entry] : answer.object("modules").items()) {
    Answer module(entry, problem);
    out.modules[name] = {module.text("version"), module.text("digest"), module.number("share")};
  }
  out.backbone_share = from["backbone"].value("share", 0.0);
  return out;
}

Client::Client(Options options) : impl_(std::make_unique<Impl>(options)) {}
Client::~Client() = default;

const std::string& Client::endpoint(wire::Endpoint which) const {
  return impl_->endpoints[static_cast<size_t>(which)];
}

Result<std::string> Client::send(const wire::Call& call) {
  const std::string id = fmt::format("c{:08x}-{}", impl_->mark, ++impl_->last_id);
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

Result<Event> Client::call(const wire::Call& call, std::optional<Milliseconds> timeout,
                           const Interrupt& interrupt) {
  const auto id = send(call);
  if (!id.ok()) return id.error();
  while (true) {
    auto event = receive_for(*id, wire::endpoint_of(call), timeout, interrupt);
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
  return finish_generation(*id, on_token, interrupt);
}

Result<Generation> Client::finish_generation(const std::string& id,
                                             const std::function<void(const Token&)>& on_token,
                                             const Interrupt& interrupt) {
  std::string text;
  std::vector<int32_t> tokens;
  bool cancelled = false;
  std::optional<Error> problem;
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
      Generation out = parse_generation(event->body, problem);
      out.text = event->body.value("text", text);
      out.tokens = event->body.contains("tokens") ? Answer(event->body, problem).tokens("tokens")
                                                  : std::move(tokens);
      if (problem) return *problem;
      return out;
    }
    const Token token = parse_token(event->body, problem);
    if (problem) return *problem;
    text += token.text;
    tokens.push_back(token.id);
    if (on_token && !cancelled) on_token(token);
  }
}

Result<ScoreResult> Client::score(const wire::Score& request) {
  const auto event = call(request);
  if (!event.ok()) return event.error();
  std::optional<Error> problem;
  ScoreResult out = parse_score(*event, problem);
  if (problem) return *problem;
  return out;
}

Result<EmbedResult> Client::embed(const wire::Embed& request, const Interrupt& interrupt) {
  const auto event = call(request, std::nullopt, interrupt);
  if (!event.ok()) return event.error();
  std::optional<Error> problem;
  EmbedResult out = parse_embedding(event->body, problem);
  if (problem) return *problem;
  return out;
}

}  // namespace chimera::client
