#include <fmt/format.h>

#include <random>

#include "base/json/writer.h"
#include "clients/gateway/anthropic/message.h"
#include "clients/gateway/run/tally.h"

namespace chimera::gateway::anthropic {
namespace {

std::string server_sent(const Json& event) {
  return fmt::format("event: {}\ndata: {}\n\n", event.value("type", ""), write_json(event));
}

/// The events of the one choice -> a message, or the events of its stream.
class Answer : public Answerer {
 public:
  Answer(std::string model, std::string id)
      : model_(std::move(model)), id_(std::move(id)), tally_(/*choices=*/1) {}

  std::string on_token(size_t, const Json& event) override {
    tally_.token(event);
    const std::string text = event.value("text", "");
    text_ += text;
    std::string bytes = begin();
    if (text.empty()) return bytes;
    return bytes + server_sent({{"type", "content_block_delta"},
                                {"index", 0},
                                {"delta", {{"type", "text_delta"}, {"text", text}}}});
  }

  std::string on_done(size_t, const Json& done) override {
    tally_.done(0, done);
    if (const std::string* text = done["text"].string()) text_ = *text;
    stop_reason_ = done.value("finish_reason", "") == "length" ? "max_tokens" : "end_turn";
    return begin();
  }

  std::string end() override {
    return server_sent({{"type", "content_block_stop"}, {"index", 0}}) +
           server_sent({{"type", "message_delta"},
                        {"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", nullptr}}},
                        {"usage", usage()},
                        {"chimera", tally_.provenance()}}) +
           server_sent({{"type", "message_stop"}});
  }

  std::string failed(const ApiError& error) override {
    return fmt::format("event: error\ndata: {}\n\n", error_body(ErrorShape::kAnthropic, error));
  }

  std::string whole() override {
    Json out = message(Json::array({Json{{"type", "text"}, {"text", text_}}}), stop_reason_);
    out["chimera"] = tally_.provenance();
    return write_json(out);
  }

  const Tally& tally() const override { return tally_; }

 private:
  std::string begin() {
    if (begun_) return {};
    begun_ = true;
    return server_sent({{"type", "message_start"}, {"message", message(Json::array(), nullptr)}}) +
           server_sent({{"type", "content_block_start"},
                        {"index", 0},
                        {"content_block", {{"type", "text"}, {"text", ""}}}});
  }

  Json message(Json content, Json stop_reason) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_},
            {"content", std::move(content)},
            {"stop_reason", std::move(stop_reason)},
            {"stop_sequence", nullptr},
            {"usage", usage()}};
  }

  /// Known when the answer is done; a stream's beginning has zeros, its end the numbers.
  Json usage() const {
    return {{"input_tokens", tally_.prompt_tokens - tally_.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", tally_.cached_tokens},
            {"output_tokens", tally_.completion_tokens}};
  }

  const std::string model_, id_;
  Tally tally_;
  std::string text_;
  Json stop_reason_ = nullptr;
  bool begun_ = false;
};

}  // namespace

Job job_of(Message asked) {
  static thread_local std::mt19937_64 random{std::random_device()()};
  Job job{.model = asked.model, .stream = asked.stream, .shape = ErrorShape::kAnthropic};
  job.answerer =
      std::make_unique<Answer>(std::move(asked.model), fmt::format("msg_{:016x}", random()));
  job.calls.push_back(std::move(asked.call));
  return job;
}

}  // namespace chimera::gateway::anthropic
