#include "clients/gateway/openai/complete.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "base/json/writer.h"
#include "clients/gateway/openai/answer.h"

namespace chimera::gateway::openai {
namespace {

using client::Event;

std::string new_id(Api api) {
  static thread_local std::mt19937_64 random{std::random_device()()};
  return fmt::format("{}-{:016x}", api == Api::kChat ? "chatcmpl" : "cmpl", random());
}

std::string server_sent(const std::string& data) { return "data: " + data + "\n\n"; }

/// Ends of a sequence that are not what the client asked for.
std::optional<ApiError> failure_of(const std::string& finish_reason) {
  if (finish_reason == "deadline") {
    return from_wire({"deadline_exceeded", "request: its deadline_ms passed", ""});
  }
  if (finish_reason == "cancelled") {
    return from_wire({"cancelled", "request: cancelled by an operator", ""});
  }
  if (finish_reason == "revoked") {
    return from_wire(
        {"failed_precondition", "modules: revoked while they answered", "ask again with others"});
  }
  return std::nullopt;
}

/// One request: its choices at the daemon, and the answer as it grows.
class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon, Completion completion)
      : exchange_(std::move(exchange)),
        caller_(std::move(caller)),
        daemon_(daemon),
        completion_(std::move(completion)),
        answer_(completion_, new_id(completion_.api), std::time(nullptr)) {}

  void start() {
    exchange_->on_gone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->end();
    });
    if (needs_module_list()) return ask_modules();
    send_all();
  }

 private:
  bool needs_module_list() const {
    return caller_.modules &&
           std::any_of(completion_.calls.begin(), completion_.calls.end(),
                       [](wire::Call call) { return !options_of(call).modules.only; });
  }

  /// "All that it may use" are those of its modules that are there.
  void ask_modules() {
    daemon_.send(wire::Info{}, [self = shared_from_this()](client::Result<Event> event) {
      if (self->ended_) return;
      if (!event.ok()) return self->fail(from_wire(event.error()));
      if (event->is_error()) return self->fail(from_wire(event->error()));
      self->use_only(event->body["modules"]);
      self->send_all();
    });
  }

  void use_only(const Json& modules) {
    std::vector<std::string> usable;
    for (const Json& module : modules) {
      const std::string name = module.value("name", "");
      const bool allowed = std::find(caller_.modules->begin(), caller_.modules->end(), name) !=
                           caller_.modules->end();
      if (allowed && module.value("enabled", false)) usable.push_back(name);
    }
    for (wire::Call& call : completion_.calls) {
      auto& filter = options_of(call).modules;
      if (!filter.only) filter.only = usable;
      std::erase_if(filter.exclude, [&](const auto& name) {
        return std::find(usable.begin(), usable.end(), name) == usable.end();
      });
    }
  }

  void send_all() {
    ids_.resize(completion_.calls.size());
    for (size_t i = 0; i < completion_.calls.size() && !ended_; ++i) {
      ids_[i] = daemon_.send(completion_.calls[i],
                             [self = shared_from_this(), i](client::Result<Event> event) {
                               self->on_event(i, std::move(event));
                             });
    }
    completion_.calls.clear();  // prompts may be long, answers last
  }

  void on_event(size_t choice, client::Result<Event> event) {
    const bool final = !event.ok() || event->is_final();
    if (final) ids_[choice].clear();
    if (ended_) return;
    if (!event.ok()) return fail(from_wire(event.error()));
    if (event->is_error()) return fail(from_wire(event->error()));
    if (final) {
      if (auto failure = failure_of(event->body.value("finish_reason", ""))) {
        return fail(std::move(*failure));
      }
    }
    const auto chunks =
        final ? answer_.on_done(choice, event->body) : answer_.on_token(choice, event->body);
    if (completion_.stream) write(chunks);
    if (answer_.complete()) finish();
  }

  void write(const std::vector<Json>& chunks) {
    std::string bytes;
    for (const Json& chunk : chunks) {
      if (!completion_.include_usage) {
        bytes += server_sent(write_json(chunk));
        continue;
      }
      Json with = chunk;
      with["usage"] = nullptr;  // as the API says, in all chunks but the last
      bytes += server_sent(write_json(with));
    }
    send(std::move(bytes));
  }

  /// Errors before the first event have a status of their own, so the head waits for it.
  void send(std::string bytes) {
    if (ended_) return;  // a write may have cut off a slow reader
    if (begun_) return exchange_->write(std::move(bytes));
    begun_ = true;
    exchange_->begin({.content_type = "text/event-stream; charset=utf-8",
                      .body = std::move(bytes),
                      .headers = {{"cache-control", "no-store"},
                                  {"x-accel-buffering", "no"},
                                  {"chimera-epoch", std::to_string(answer_.epoch())}}});
  }

  void finish() {
    if (completion_.stream) {
      if (completion_.include_usage) send(server_sent(write_json(answer_.usage_chunk())));
      send("data: [DONE]\n\n");
      if (!ended_) exchange_->finish();
    } else {
      Response response{.body = write_json(answer_.whole()) + "\n"};
      response.headers = {{"cache-control", "no-store"},
                          {"chimera-epoch", std::to_string(answer_.epoch())},
                          {"chimera-modules", answer_.shares()}};
      exchange_->respond(std::move(response));
    }
    end();
  }

  void fail(ApiError error) {
    if (begun_) {
      send(server_sent(error_body(ErrorShape::kOpenAi, error)));
      if (!ended_) exchange_->finish();
    } else {
      exchange_->respond(error_response(ErrorShape::kOpenAi, error));
    }
    end();
  }

  /// Nothing more is told; what is still in progress is cancelled.
  void end() {
    if (ended_) return;
    ended_ = true;
    for (const std::string& id : ids_) {
      if (!id.empty()) daemon_.cancel(id);
    }
    caller_.slot.reset();
    exchange_.reset();
  }

  std::shared_ptr<Exchange> exchange_;
  Caller caller_;
  Upstream& daemon_;
  Completion completion_;
  Answer answer_;
  std::vector<std::string> ids_;  // "": ended
  bool begun_ = false, ended_ = false;
};

}  // namespace

void complete(Api api, std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon,
              const ModelNames& names) {
  auto read = read_completion(api, exchange->request(), names);
  if (const auto* error = std::get_if<ApiError>(&read)) {
    return exchange->respond(error_response(ErrorShape::kOpenAi, *error));
  }
  auto& completion = std::get<Completion>(read);
  for (wire::Call& call : completion.calls) {
    if (!caller.modules) break;
    if (const auto error = check_allowed(options_of(call).modules, *caller.modules)) {
      return exchange->respond(error_response(ErrorShape::kOpenAi, *error));
    }
  }
  std::make_shared<Run>(std::move(exchange), std::move(caller), daemon, std::move(completion))
      ->start();
}

}  // namespace chimera::gateway::openai
