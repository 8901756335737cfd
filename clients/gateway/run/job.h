// What an API makes of a request for text: the calls of its choices, and the shape of the answer.
//
// Thread safety: none; by the thread of the server's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"
#include "clients/gateway/dialect/call_rules.h"
#include "clients/gateway/dialect/dialect.h"
#include "clients/gateway/run/tally.h"
#include "clients/gateway/run/watch.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway {

/// The events of the choices -> an answer. Knows neither sockets nor the daemon.
class Answerer {
 public:
  virtual ~Answerer() = default;

  /// Of a chat, before the first event: how the texts are to be read.
  virtual void reads(const Reading&) {}

  /// Each takes an event of a choice and returns what a stream sends for it, perhaps nothing.
  virtual std::string on_token(size_t choice, const Json& event) = 0;
  virtual std::string on_done(size_t choice, const Json& done) = 0;
  /// Of a stream, after the last choice is done, and where it fails after it has begun.
  virtual std::string end() = 0;
  virtual std::string failed(const ApiError& error) = 0;
  /// The whole answer, once every choice is done.
  virtual std::string whole() = 0;

  /// What is wrong with the answer as it becomes, if anything: asked after every choice.
  virtual std::optional<ApiError> problem() const { return std::nullopt; }
  /// Forgets what was done: all of it comes once more.
  virtual void begin_anew() {}

  /// What the choices took together.
  virtual const Tally& tally() const = 0;
};

struct Job {
  /// One for each choice: generate or chat, or embed.
  std::vector<wire::Call> calls{};
  /// Of them in progress; 0: all, and each is a request of its own. Else they are one: it is let in
  /// with the first of them, has one deadline, and all are answered on one epoch.
  size_t at_once = 0;
  std::string choice_name{};  // "input": what is wrong with one is told of "input[2]"; "": of none
  std::string model{};        // as it was asked for
  std::string
      schema_name{};  // "text.format.schema": what the API calls the answer's; "": it has none
  bool stream = false;
  bool after_tool = false;  // of a chat: it ends with a tool's result
  CallRules rules{};        // of a chat
  ErrorShape shape = ErrorShape::kOpenAi;
  std::unique_ptr<Answerer> answerer{};
  std::unique_ptr<RunWatch> watch{};  // null: nobody counts
  /// Called before the calls are sent, and answers when they may be; an error is that of the run.
  using Ready = std::function<void(std::optional<ApiError>)>;
  std::function<void(Job&, Ready)> prepare{};
};

/// The options of a call of a Job for text.
wire::Generate& options_of(wire::Call& call);

}  // namespace chimera::gateway
