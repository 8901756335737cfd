// Requests in progress as the server sees them: the bounded queue between whoever computes an
// answer (engine thread, workers) and the IO thread that sends it.
//
// Thread safety: Live and Ready may be used from any thread unless a method says "IO thread".
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/statement/statement.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/security/principal.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

/// Who asked: a connection of one of the two sockets.
struct Peer {
  size_t port = 0;         // 0 serve, 1 control
  std::string identity;    // ZeroMQ routing id
  bool delimiter = false;  // a REQ socket: one answer, after an empty frame
  std::string mark;        // what the handshake proved (daemon/security/authority.h)
  std::string address;     // "localhost:UID:GID:PID" over ipc
  PrincipalPtr principal;  // whom the mark stood for when the request came
};

/// A message to a client: JSON body and, for logits, one binary frame that is sent uncopied.
struct Answer {
  std::string body;
  std::shared_ptr<const std::vector<float>> binary;
  bool final = false;
  std::shared_ptr<const OutputHold> output = nullptr;  // until ZeroMQ has sent all of it
};

/// What a receipt says besides the answer.
struct Receipt {
  const StatementSigner* signer = nullptr;
  std::string id, call, client;
  std::string request;  // digest
};

/// How a request ended, for the log: figures of its answer, and none of its text.
struct Outcome {
  Code code = Code::kOk;
  std::string_view finish{};  // a name of kFinishReasonNames; "": no answer of the engine
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0;
  std::string shares{};  // "backbone:0.69,legal:0.31", of those that had one
};

class Live;

/// Live requests with something to send; wakes the IO thread through an eventfd, once per batch.
class Ready {
 public:
  Ready();
  ~Ready();
  Ready(const Ready&) = delete;
  Ready& operator=(const Ready&) = delete;

  int fd() const { return fd_; }  // readable while something waits; -1 when creation failed
  void push(std::shared_ptr<Live> live);
  /// Wakes the IO thread without a request, e.g. to stop.
  void wake();
  /// IO thread: everything pushed since the last call.
  std::vector<std::shared_ptr<Live>> take();

 private:
  Mutex mutex_;
  std::vector<std::shared_ptr<Live>> waiting_ GUARDED_BY(mutex_);
  int fd_ = -1;
};

/// One request. Takes the engine's events without ever blocking: at most `max_queued` wait; one
/// more and the request counts as read too slowly, later tokens are dropped and it ends with
/// resource_exhausted whatever the engine says.
class Live final : public EventSink, public std::enable_shared_from_this<Live> {
 public:
  Live(std::string id, Peer peer, size_t max_queued, std::weak_ptr<Ready> ready);

  const std::string& id() const { return id_; }
  const Peer& peer() const { return peer_; }

  /// Set by the loop when it takes the request: what is asked and since when.
  std::string_view call;  // a name of the protocol, static
  size_t call_index = 0;  // of wire::Call
  uint64_t turn = 0;      // Registry::take_turn(), of a change
  std::chrono::steady_clock::time_point since;
  std::string traceparent;   // "": of no trace
  std::string request_text;  // as it came, of a call that asks for a receipt

  /// Set before the request is submitted.
  bool stream = false;                                        // token events wanted
  EngineRequest::Kind kind = EngineRequest::Kind::kGenerate;  // of the answer
  int64_t vocab = 0;                                          // columns of logits
  std::optional<uint64_t> seed;                               // reported in `done`
  std::shared_ptr<const Tokenizer> tokenizer;  // of the texts of alternatives, when asked for
  std::optional<Receipt> receipt;              // asked for
  /// Called once with the answer, or null when there is none, whether or not its client is still
  /// there; on the thread that ends it, before the answer can be sent.
  std::function<void(const DoneEvent*)> settle;

  void on_token(TokenEvent event) override;
  void on_done(DoneEvent event) override;
  void on_error(Status status) override;
  /// Ends a request that is no generation: the finished JSON body.
  void answer(std::string body);

  /// How far the work is, before the final event. The newest is enough: one that waits is replaced.
  /// A peer that takes one answer gets none of them.
  void progress(std::string body);

  /// How to end the work; called at once when cancel() came first.
  void set_canceller(std::function<void()> canceller);
  void cancel();
  /// Ends the request with an error and ends the work.
  void deny(Status status);
  /// The same for work that is not broken off in the middle, as a change is: what has not begun is
  /// not done any more. Whoever begins, or goes from one step to the next, asks for withdrawal().
  void withdraw(Status status);
  std::optional<Status> withdrawal();
  /// The modules that it may use now. Handlers ask when they hand it to the engine, and say how to
  /// change it afterwards; `entitler` is called at once when it has changed meanwhile.
  ModuleRightsPtr rights();
  void set_entitler(const std::function<void(ModuleRightsPtr)>& entitler);
  void entitle(ModuleRightsPtr rights);
  /// For the record: called once with the outcome, on any thread. The final event can be sent once
  /// it has called `then`, which it may leave to another thread.
  using Recorder = std::function<void(const Status& outcome, std::function<void()> then)>;
  /// Before the request is handled.
  void set_recorder(Recorder recorder);
  /// For an answer that is not the outcome: whoever takes the recorder calls it with that later.
  Recorder take_recorder();
  /// The client is gone: drops what waits and everything to come, and ends the work.
  void abandon();

  /// IO thread: the next message to send; nullopt when none waits.
  std::optional<Answer> next();
  /// IO thread: what the last message of next() said; nothing before it.
  const std::optional<Outcome>& outcome() const { return outcome_; }
  /// IO thread: gives back a message that could not be sent yet; next() returns it first.
  void put_back(Answer answer);
  /// IO thread: true once, after the queue ran over.
  bool take_overflow();

 private:
  struct Interim {
    std::string body;
  };
  using Event = std::variant<TokenEvent, DoneEvent, Status, std::string, Interim>;
  /// Ends it with `event`, once that is recorded. What comes after it does nothing.
  void finish(Event event) EXCLUDES(mutex_);
  void send_last(Event event) EXCLUDES(mutex_);
  void settle_once(const DoneEvent* done);
  /// Whether ready_ has to be told of this request, once the mutex is free again.
  bool to_announce() REQUIRES(mutex_);
  void announce() EXCLUDES(mutex_);

  const std::string id_;
  const Peer peer_;
  const size_t max_queued_;
  const std::weak_ptr<Ready> ready_;  // which holds this request while something waits

  Mutex mutex_;
  std::deque<Event> queue_ GUARDED_BY(mutex_);
  std::function<void()> canceller_ GUARDED_BY(mutex_);
  Recorder recorder_ GUARDED_BY(mutex_);
  std::optional<Status> withdrawal_ GUARDED_BY(mutex_);
  ModuleRightsPtr rights_ GUARDED_BY(mutex_);
  bool rights_changed_ GUARDED_BY(mutex_) = false;  // since they were asked for
  std::function<void(ModuleRightsPtr)> entitler_ GUARDED_BY(mutex_);
  bool announced_ GUARDED_BY(mutex_) = false;  // in ready_ already
  bool ending_ GUARDED_BY(mutex_) = false;     // the final event is known
  bool ended_ GUARDED_BY(mutex_) = false;      // and queued
  bool overflowed_ GUARDED_BY(mutex_) = false;
  bool overflow_reported_ GUARDED_BY(mutex_) = false;
  bool cancel_requested_ GUARDED_BY(mutex_) = false;
  bool abandoned_ GUARDED_BY(mutex_) = false;

  std::optional<Answer> stalled_;   // IO thread only
  std::optional<Outcome> outcome_;  // IO thread only
};

}  // namespace chimera
