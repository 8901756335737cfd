#include "clients/gateway/run/run.h"

#include <algorithm>
#include <chrono>
#include <deque>

#include "clients/gateway/api/composition.h"
#include "clients/gateway/run/as_one.h"
#include "clients/gateway/run/failure.h"

namespace chimera::gateway {
namespace {

using client::Event;

// A call of a request that was let in is tried again so often, where the daemon has no room for it.
constexpr std::chrono::milliseconds kTryAgain{50};

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon, Job job)
      : exchange_(std::move(exchange)),
        caller_(std::move(caller)),
        daemon_(daemon),
        job_(std::move(job)),
        left_(job_.calls.size()),
        begun_choices_(left_) {}

  void start() {
    exchange_->on_gone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->end("client_gone");
    });
    for (wire::Call& call : job_.calls) {
      if (!caller_.modules) break;
      if (auto error = check_allowed(*modules_of(call), *caller_.modules)) {
        return fail(std::move(*error));
      }
    }
    if (!job_.prepare) return go_on();
    job_.prepare(job_, [self = shared_from_this()](std::optional<ApiError> problem) {
      if (self->ended_) return;
      if (problem) return self->fail(std::move(*problem));
      self->go_on();
    });
  }

 private:
  void go_on() {
    if (needs_module_list()) return ask_modules();
    send_all();
  }

  bool needs_module_list() {
    return caller_.modules && std::any_of(job_.calls.begin(), job_.calls.end(),
                                          [](wire::Call& call) { return !modules_of(call)->only; });
  }

  /// "All that it may use" are those of its modules that are there.
  void ask_modules() {
    const auto choose = [self = shared_from_this()](client::Result<Event> event) {
      if (self->ended_) return;
      if (!event.ok()) return self->fail(from_wire(event.error()));
      if (event->is_error()) return self->fail(from_wire(event->error()));
      self->use_only(event->body["modules"]);
      self->send_all();
    };
    daemon_.send(wire::Info{}, choose, caller_.traceparent);
  }

  void use_only(const Json& modules) {
    std::vector<std::string> usable;
    for (const Json& module : modules) {
      const std::string name = module.value("name", "");
      // An adapter is used where a request names it.
      if (module.value("kind", "") == "lora") continue;
      if (module.value("enabled", false) && contains(*caller_.modules, name)) {
        usable.push_back(name);
      }
    }
    for (wire::Call& call : job_.calls) {
      auto& filter = *modules_of(call);
      if (!filter.only) filter.only = usable;
      std::erase_if(filter.exclude, [&](const auto& name) { return !contains(usable, name); });
    }
  }

  void send_all() {
    ids_.resize(job_.calls.size());
    for (size_t i = 0; i < job_.calls.size(); ++i) waiting_.push_back(i);
    send_waiting();
    if (job_.at_once == 0) job_.calls.clear();  // prompts may be long, answers last
  }

  void send_waiting() {
    while (!ended_ && !waiting_.empty() && (job_.at_once == 0 || in_progress_ < job_.at_once)) {
      const size_t i = waiting_.front();
      waiting_.pop_front();
      ++in_progress_;
      const auto take = [self = shared_from_this(), i](client::Result<Event> event) {
        self->on_event(i, std::move(event));
      };
      if (job_.at_once == 0) {
        ids_[i] = daemon_.send(job_.calls[i], take, caller_.traceparent);
        continue;
      }
      wire::Call call = job_.calls[i];
      if (!CallsAsOne::shorten_deadline(call, elapsed())) return fail(*failure_of("deadline"));
      ids_[i] = daemon_.send(call, take, caller_.traceparent);
    }
  }

  /// Where the daemon has no room for one call beside others of this job, it has when they end; and
  /// where others took their place, some time later. Who was let in is not sent away any more.
  bool put_off(size_t choice, const wire::Error& error) {
    if (error.code != "resource_exhausted" || job_.at_once == 0) return false;
    if (in_progress_ == 0 && !as_one_.is_let_in(std::chrono::steady_clock::now())) return false;
    waiting_.push_front(choice);
    job_.at_once = std::max<size_t>(in_progress_, 1);
    if (in_progress_ > 0) return true;
    daemon_.after(kTryAgain, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->send_waiting();
    });
    return true;
  }

  /// False when the choice does not count: it is computed once more, or all has failed.
  bool counts(size_t choice, const Json& done) {
    if (job_.at_once == 0) return true;
    const uint64_t epoch = done["provenance"].value("epoch", uint64_t{0});
    switch (as_one_.done(choice, epoch, std::chrono::steady_clock::now())) {
      case CallsAsOne::Take::kCounts:
        return true;
      case CallsAsOne::Take::kOnceMore:
        waiting_.push_back(choice);
        send_waiting();
        return false;
      case CallsAsOne::Take::kBeginAnew: {
        const std::vector<size_t> again = as_one_.take_outdated();
        waiting_.insert(waiting_.end(), again.begin(), again.end());
        left_ += again.size();
        job_.answerer->begin_anew();
        return true;
      }
      case CallsAsOne::Take::kGiveUp:
        break;
    }
    fail(as_one_.kept_changing());
    return false;
  }

  void on_event(size_t choice, client::Result<Event> event) {
    const bool final = !event.ok() || event->is_final();
    if (final) {
      ids_[choice].clear();
      --in_progress_;
    }
    if (ended_) return;
    if (!event.ok()) return fail(from_wire(event.error()));
    if (event->is_error()) {
      if (put_off(choice, event->error())) return;
      ApiError error = told_of_request(from_wire(event->error()), job_.model, job_.schema_name);
      return fail(told_of_choice(std::move(error), job_.choice_name, choice));
    }
    count(choice, event->body, final);
    if (!final) return send(job_.answerer->on_token(choice, event->body));
    if (auto failure = failure_of(event->body.value("finish_reason", ""))) {
      return fail(std::move(*failure));
    }
    if (!counts(choice, event->body)) return;
    std::string bytes = job_.answerer->on_done(choice, event->body);
    if (auto problem = job_.answerer->problem()) return fail(std::move(*problem));
    if (--left_ > 0) {
      send(std::move(bytes));
      return send_waiting();
    }
    if (job_.stream) bytes += job_.answerer->end();
    finish(std::move(bytes));
  }

  void count(size_t choice, const Json& event, bool final) {
    if (job_.watch == nullptr) return;
    const bool first = !begun_choices_[choice];
    begun_choices_[choice] = true;
    if (!final) {
      if (first) job_.watch->first_token(seconds());
      return;
    }
    const Json& timing = event["timing"];
    const ChoiceTimes times{.queue = timing.value("queue_ms", 0.0) / 1000.0,
                            .prefill = timing.value("prefill_ms", 0.0) / 1000.0,
                            .decode = timing.value("decode_ms", 0.0) / 1000.0,
                            .tokens = event["usage"].value("completion_tokens", int64_t{0})};
    // Without a stream there was no event to see it by.
    if (first && times.tokens > 0) job_.watch->first_token(times.queue + times.prefill);
    job_.watch->choice(times);
  }

  std::chrono::milliseconds elapsed() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 started_);
  }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  }

  /// Errors before the first event have a status of their own, so the head waits for it.
  void send(std::string bytes) {
    if (!job_.stream || bytes.empty() || ended_) return;
    if (begun_) return exchange_->write(std::move(bytes));
    begun_ = true;
    exchange_->begin(
        {.content_type = "text/event-stream; charset=utf-8",
         .body = std::move(bytes),
         .headers = {{"cache-control", "no-store"},
                     {"x-accel-buffering", "no"},
                     {"chimera-epoch", std::to_string(job_.answerer->tally().epoch())}}});
  }

  void finish(std::string last) {
    if (job_.stream) {
      send(std::move(last));
      if (!ended_) exchange_->finish();
      return end("ok");
    }
    Response response{.body = job_.answerer->whole() + "\n"};
    response.headers = {{"cache-control", "no-store"},
                        {"chimera-epoch", std::to_string(job_.answerer->tally().epoch())},
                        {"chimera-modules", job_.answerer->tally().shares_text()}};
    exchange_->respond(std::move(response));
    end("ok");
  }

  void fail(ApiError error) {
    if (begun_) {
      send(job_.answerer->failed(error));
      if (!ended_) exchange_->finish();
    } else {
      exchange_->respond(error_response(job_.shape, error));
    }
    end(error.code);
  }

  /// Nothing more is told; what is still in progress is cancelled.
  void end(std::string outcome) {
    if (ended_) return;
    ended_ = true;
    if (job_.watch != nullptr) {
      const Tally& tally = job_.answerer->tally();
      job_.watch->ended({.outcome = std::move(outcome),
                         .seconds = seconds(),
                         .input_tokens = tally.prompt_tokens,
                         .output_tokens = tally.completion_tokens,
                         .cached_tokens = tally.cached_tokens,
                         .shares = tally.shares()});
      job_.watch.reset();
    }
    for (const std::string& id : ids_) {
      if (!id.empty()) daemon_.cancel(id);
    }
    caller_.slot.reset();
    exchange_.reset();
  }

  std::shared_ptr<Exchange> exchange_;
  Caller caller_;
  Upstream& daemon_;
  Job job_;
  size_t left_;  // choices that are not done
  std::vector<bool> begun_choices_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::vector<std::string> ids_;  // "": not sent, or ended
  std::deque<size_t> waiting_;    // to be sent
  size_t in_progress_ = 0;
  CallsAsOne as_one_;  // where they are one request
  bool begun_ = false, ended_ = false;
};

}  // namespace

wire::Generate& options_of(wire::Call& call) {
  if (auto* chat = std::get_if<wire::Chat>(&call)) return chat->options;
  return std::get<wire::Generate>(call);
}

void run(std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon, Job job) {
  std::make_shared<Run>(std::move(exchange), std::move(caller), daemon, std::move(job))->start();
}

}  // namespace chimera::gateway
