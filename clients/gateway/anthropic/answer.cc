#include <fmt/format.h>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/gateway/anthropic/message.h"
#include "clients/gateway/body/random_id.h"
#include "clients/gateway/dialect/parser.h"
#include "clients/gateway/run/tally.h"

namespace chimera::gateway::anthropic {
namespace {

std::string server_sent(const Json& event) {
  return fmt::format("event: {}\ndata: {}\n\n", event.value("type", ""), write_json(event));
}

/// The events of the one choice -> a message, or the events of its stream.
class Answer : public Answerer {
 public:
  Answer(const Message& asked, std::string id)
      : model_(asked.model),
        id_(std::move(id)),
        stream_(asked.stream),
        rules_(asked.rules),
        tally_(/*choices=*/1) {
    reads({});
  }

  void reads(const Reading& reading) override {
    dialect_ = reading.dialect;
    parser_ = make_parser(reading, rules_.tools);
  }

  std::string on_token(size_t, const Json& event) override {
    tally_.token(event);
    if (!stream_) return {};
    std::string bytes = begin();
    bytes += take(parser_->push(event.value("text", "")));
    return bytes;
  }

  std::string on_done(size_t, const Json& done) override {
    tally_.done(0, done);
    std::string bytes = begin();
    if (!stream_) take(parser_->push(done.value("text", "")));
    bytes += take(parser_->finish());
    bytes += close();
    const bool cut = done.value("finish_reason", "") == "length";
    stop_reason_ = cut ? "max_tokens" : calls_ > 0 ? "tool_use" : "end_turn";
    return bytes;
  }

  std::string end() override {
    return server_sent({{"type", "message_delta"},
                        {"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", nullptr}}},
                        {"usage", usage()},
                        {"chimera", tally_.provenance()}}) +
           server_sent({{"type", "message_stop"}});
  }

  std::string failed(const ApiError& error) override {
    return fmt::format("event: error\ndata: {}\n\n", error_body(ErrorShape::kAnthropic, error));
  }

  std::string whole() override {
    Json out = message(content_, stop_reason_);
    out["chimera"] = tally_.provenance();
    return write_json(out);
  }

  const Tally& tally() const override { return tally_; }

 private:
  std::string begin() {
    if (begun_) return {};
    begun_ = true;
    return server_sent({{"type", "message_start"}, {"message", message(Json::array(), nullptr)}});
  }

  std::string take(std::vector<Piece> pieces) {
    std::string bytes;
    for (const Piece& piece : pieces) {
      switch (piece.kind) {
        case Piece::Kind::kText:
          bytes += grow("text", piece.text);
          break;
        case Piece::Kind::kReasoning:
          bytes += grow("thinking", piece.text);
          break;
        case Piece::Kind::kCall:
          if (rules_.parallel || calls_ == 0) bytes += call(piece);
          break;
      }
    }
    return bytes;
  }

  /// Words go on in the block that is open, or begin one of their own.
  std::string grow(const char* type, const std::string& words) {
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

  std::string call(const Piece& piece) {
    ++calls_;
    std::string bytes = close();
    bytes += start({{"type", "tool_use"},
                    {"id", new_call_id(dialect_, "toolu_")},
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
    return {{"input_tokens", tally_.prompt_tokens - tally_.cached_tokens},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", tally_.cached_tokens},
            {"output_tokens", tally_.completion_tokens}};
  }

  const std::string model_, id_;
  const bool stream_;
  const CallRules rules_;
  Dialect dialect_ = Dialect::kPlain;
  std::unique_ptr<Parser> parser_;
  Tally tally_;
  Json content_ = Json::array();  // blocks, the last of them perhaps open
  size_t calls_ = 0;
  Json stop_reason_ = nullptr;
  bool begun_ = false, open_ = false;
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
