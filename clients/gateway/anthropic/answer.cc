#include <fmt/format.h>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/gateway/anthropic/message.h"
#include "clients/gateway/body/random_id.h"
#include "clients/gateway/run/one_answer.h"

namespace chimera::gateway::anthropic {
namespace {

std::string server_sent(const Json& event) {
  return fmt::format("event: {}\ndata: {}\n\n", event.value("type", ""), write_json(event));
}

/// A message, or the events of its stream.
class Answer final : public OneAnswer {
 public:
  Answer(const Message& asked, std::string id)
      : OneAnswer(asked.stream, asked.rules), model_(asked.model), id_(std::move(id)) {}

  std::string end() override {
    return server_sent({{"type", "message_delta"},
                        {"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", nullptr}}},
                        {"usage", usage()},
                        {"chimera", tally().provenance()}}) +
           server_sent({{"type", "message_stop"}});
  }

  std::string failed(const ApiError& error) override {
    return fmt::format("event: error\ndata: {}\n\n", error_body(ErrorShape::kAnthropic, error));
  }

  std::string whole() override {
    Json out = message(content_, stop_reason_);
    out["chimera"] = tally().provenance();
    return write_json(out);
  }

 private:
  std::string begin() override {
    return server_sent({{"type", "message_start"}, {"message", message(Json::array(), nullptr)}});
  }

  std::string finish() override {
    stop_reason_ = cut() ? "max_tokens" : calls() > 0 ? "tool_use" : "end_turn";
    return close();
  }

  /// Words go on in the block that is open, or begin one of their own.
  std::string grow(Piece::Kind kind, const std::string& words) override {
    const char* const type = kind == Piece::Kind::kText ? "text" : "thinking";
    std::string bytes;
    if (!open_ || last()["type"] != Json(type)) {
      Json block = {{"type", type}, {type, ""}};
      // Whoever sends it back proves nothing by it here.
      if (block["type"] == Json("thinking")) block["signature"] = "";
      bytes = close();
      bytes += start(std::move(block));
    }
    Json& block = last();
    block[type] = block.value(type, "") + words;
    return bytes + delta({{"type", fmt::format("{}_delta", type)}, {type, words}});
  }

  std::string call(const Piece& piece) override {
    std::string bytes = close();
    bytes += start({{"type", "tool_use"},
                    {"id", new_call_id(dialect(), "toolu_")},
                    {"name", piece.text},
                    {"input", Json::object()}});
    auto input = parse_json(piece.arguments);
    last()["input"] = input.ok() ? std::move(*input) : Json::object();
    bytes += delta({{"type", "input_json_delta"}, {"partial_json", piece.arguments}});
    bytes += close();
    return bytes;
  }

  Json& last() { return *(content_.end() - 1); }

  std::string start(Json block) {
    open_ = true;
    std::string bytes = server_sent(
        {{"type", "content_block_start"}, {"index", content_.size()}, {"content_block", block}});
    content_.push_back(std::move(block));
    return bytes;
  }

  std::string delta(Json change) const {
    return server_sent({{"type", "content_block_delta"},
                        {"index", content_.size() - 1},
                        {"delta", std::move(change)}});
  }

  std::string close() {
    if (!open_) return {};
    open_ = false;
    return server_sent({{"type", "content_block_stop"}, {"index", content_.size() - 1}});
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
    return {{"input_tokens", tally().prompt_tokens - tally().cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", tally().cached_tokens},
            {"output_tokens", tally().completion_tokens}};
  }

  const std::string model_, id_;
  Json content_ = Json::array();  // blocks, the last of them perhaps open
  Json stop_reason_ = nullptr;
  bool open_ = false;
};

}  // namespace

Job job_of(Message asked) {
  Job job{.model = asked.model,
          .stream = asked.stream,
          .after_tool = asked.after_tool,
          .rules = asked.rules,
          .shape = ErrorShape::kAnthropic};
  job.answerer = std::make_unique<Answer>(asked, random_id("msg_"));
  job.calls.push_back(std::move(asked.call));
  return job;
}

}  // namespace chimera::gateway::anthropic
