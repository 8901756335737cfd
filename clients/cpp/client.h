// C++ client of the Chimera daemon: blocking calls, streaming, and pipelining by hand.
//
//   chimera::client::Client client({});
//   chimera::wire::Generate request;
//   request.prompt = "The parties agree";
//   auto done = client.generate(request, [](const auto& token) { std::cout << token.text; });
//
// Errors are values: `permission_denied` when the daemon refuses the key, `unavailable` when nobody
// listens at the endpoint or the connection was lost, `deadline_exceeded` when an answer did not
// come in time, else what the daemon answered.
//
// Thread safety: none; use one Client per thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "chimera_client/result.h"
#include "clients/wire/protocol.h"

namespace chimera::client {

using Milliseconds = std::chrono::milliseconds;

struct Options {
  std::string serve;    // empty: the default endpoint of this user
  std::string control;  // likewise
  /// Over tcp:// the client proves who it is with the secret key of this file, and takes no other
  /// daemon than the one of the public key in the other file. Both or none. Empty: what the
  /// environment says in CHIMERA_KEY and CHIMERA_SERVER_KEY.
  std::string key = {};
  std::string server_key = {};
  Milliseconds connect_timeout{2000};  // nobody there for so long: unavailable
};

/// One answer of the daemon.
struct Event {
  Json body;
  std::string binary;  // of logits; else empty

  std::string id() const;
  bool is_token() const { return body.value("event", "") == "token"; }
  bool is_error() const { return body.value("event", "") == "error"; }
  bool is_progress() const { return body.value("event", "") == "progress"; }
  bool is_final() const { return !is_token() && !is_progress(); }
  Error error() const;  // REQUIRES: is_error()
};

/// A token that might have stood in a place.
struct TokenChoice {
  int32_t id = 0;
  double logprob = 0.0;  // -infinity: impossible
  std::string text;      // U+FFFD for what is no whole character
};

struct Token {
  std::string text;  // may be empty while a character is incomplete
  int32_t id = 0;
  uint64_t epoch = 0;
  std::optional<double> logprob;
  std::vector<TokenChoice> top;  // the most likely ones, if asked for: best first
  /// Of the gate's mass, by module and "backbone", if asked for; sums to 1.
  std::map<std::string, double> shares;
};

struct Provenance {
  struct Module {
    std::string version, digest;
    double share = 0.0;
  };
  uint64_t epoch = 0;
  std::string composition;
  std::map<std::string, Module> modules;
  double backbone_share = 0.0;
};

struct Generation {
  std::string finish_reason;
  std::string text;  // whole, with and without streaming
  std::vector<int32_t> tokens;
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0;
  Provenance provenance;
  std::string receipt;  // if asked for: the text that `chimera receipt verify` takes
  Json done;            // as it came
};

struct ScoreResult {
  std::optional<double> bits_per_byte;  // of text
  double nats = 0.0;
  int64_t count = 0;  // scored tokens
  std::vector<float> logprobs;
  std::vector<float> logits;  // [rows, vocab] when asked for
  int64_t rows = 0, vocab = 0;
  Provenance provenance;
  std::string receipt;  // as Generation's
  Json done;
};

struct EmbedResult {
  std::vector<float> embedding;  // [hidden]; none when it ended before its time
  std::string finish_reason;     // "embedded"
  int64_t prompt_tokens = 0;
  Provenance provenance;
  Json done;
};

/// Asked about twenty times a second while waiting; true ends the wait.
using Interrupt = std::function<bool()>;

class Client {
 public:
  explicit Client(Options options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const std::string& endpoint(wire::Endpoint which) const;

  /// Sends a request and returns its id; many may be in progress.
  Result<std::string> send(const wire::Call& call);
  /// The next event of any request of that endpoint. No timeout: waits until something comes, the
  /// connection is lost or `interrupt` says so (then `cancelled`).
  Result<Event> receive(wire::Endpoint which, std::optional<Milliseconds> timeout,
                        const Interrupt& interrupt = {});
  /// The next event of one request; events of others wait for their own receive.
  Result<Event> receive_for(const std::string& id, wire::Endpoint which,
                            std::optional<Milliseconds> timeout, const Interrupt& interrupt = {});

  /// Sends a request and waits for its `done`. When `interrupt` becomes true: `cancelled`, and the
  /// request is in progress until this client goes.
  Result<Event> call(const wire::Call& call, std::optional<Milliseconds> timeout = {},
                     const Interrupt& interrupt = {});

  /// Streams (unless request.stream is false) and returns the whole. When `interrupt` becomes true
  /// the request is cancelled and what came so far is returned, finish_reason "cancelled".
  Result<Generation> generate(const wire::Generate& request,
                              const std::function<void(const Token&)>& on_token = {},
                              const Interrupt& interrupt = {});
  /// The same for a conversation.
  Result<Generation> chat(const wire::Chat& request,
                          const std::function<void(const Token&)>& on_token = {},
                          const Interrupt& interrupt = {});
  Result<ScoreResult> score(const wire::Score& request);
  Result<EmbedResult> embed(const wire::Embed& request, const Interrupt& interrupt = {});

 private:
  struct Impl;
  Result<Generation> run(const wire::Call& call, const std::function<void(const Token&)>& on_token,
                         const Interrupt& interrupt);
  Result<Generation> finish_generation(const std::string& id,
                                       const std::function<void(const Token&)>& on_token,
                                       const Interrupt& interrupt);
  std::unique_ptr<Impl> impl_;
};

/// Of a `done`; when it is not as the protocol says, the first reason goes to `problem`.
Provenance parse_provenance(const Json& done, std::optional<Error>& problem);

}  // namespace chimera::client
