#include <fmt/format.h>

#include <ctime>
#include <memory>

#include "base/json/writer.h"
#include "clients/gateway/body/random_id.h"
#include "clients/gateway/openai/response.h"
#include "clients/gateway/run/one_answer.h"

namespace chimera::gateway::openai {
namespace {

/// Items that are a list of parts with one part in it.
struct Block {
  const char* item;  // of the item, its part, and what the events of its text are called
  const char* part;
  const char* prefix;
};
constexpr Block kMessage{"message", "output_text", "msg_"};
constexpr Block kReasoning{"reasoning", "reasoning_text", "rs_"};

/// A response, or the events of its stream.
class ResponseAnswer final : public OneAnswer {
 public:
  ResponseAnswer(const ResponseRequest& asked, int64_t created)
      : OneAnswer(asked.stream, asked.rules),
        echo_(asked.echo),
        id_(random_id("resp_")),
        created_(created) {}

  std::string end() override {
    return event(fmt::format("response.{}", ended()), {{"response", response(ended())}});
  }

  std::string failed(const ApiError& error) override {
    Json out = response("failed");
    out["error"] = {{"code", error.status == 429 ? "rate_limit_exceeded" : "server_error"},
                    {"message", error.text()}};
    return event("response.failed", {{"response", std::move(out)}});
  }

  std::string whole() override { return write_json(response(ended())); }

 private:
  std::string event(const std::string& type, const Json& fields) {
    Json out = {{"type", type}, {"sequence_number", sequence_++}};
    out.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, write_json(out));
  }

  const char* ended() const { return cut() ? "incomplete" : "completed"; }

  std::string begin() override {
    std::string bytes = event("response.created", {{"response", response("in_progress")}});
    bytes += event("response.in_progress", {{"response", response("in_progress")}});
    return bytes;
  }

  std::string grow(Piece::Kind kind, const std::string& words) override {
    return grow(kind == Piece::Kind::kText ? kMessage : kReasoning, words);
  }

  std::string finish() override {
    std::string bytes;
    // An answer without words is one all the same.
    if (output_.empty()) bytes = grow(kMessage, "");
    return bytes + close(ended());
  }

  Json& last() { return *(output_.end() - 1); }
  Json place() { return {{"item_id", last()["id"]}, {"output_index", output_.size() - 1}}; }
  Json part_place() {
    Json out = place();
    out["content_index"] = 0;
    return out;
  }

  /// Words go on in the item that is open, or begin one of their own.
  std::string grow(const Block& block, const std::string& words) {
    std::string bytes;
    if (open_ != &block) {
      bytes = close("completed");
      bytes += open(block);
    }
    text_ += words;
    if (words.empty()) return bytes;
    Json fields = part_place();
    fields["delta"] = words;
    if (&block == &kMessage) fields["logprobs"] = Json::array();
    return bytes + event(fmt::format("response.{}.delta", block.part), fields);
  }

  static Json part(const Block& block, const std::string& text) {
    Json out = {{"type", block.part}, {"text", text}};
    if (&block == &kMessage) {
      out["annotations"] = Json::array();
      out["logprobs"] = Json::array();
    }
    return out;
  }

  std::string open(const Block& block) {
    open_ = &block;
    text_.clear();
    Json item = {{"id", random_id(block.prefix)}, {"type", block.item}, {"status", "in_progress"}};
    if (&block == &kMessage) item["role"] = "assistant";
    if (&block == &kReasoning) item["summary"] = Json::array();
    item["content"] = Json::array();
    output_.push_back(std::move(item));
    std::string bytes = event("response.output_item.added",
                              {{"output_index", output_.size() - 1}, {"item", last()}});
    Json fields = part_place();
    fields["part"] = part(block, "");
    return bytes + event("response.content_part.added", fields);
  }

  std::string close(const char* status) {
    if (open_ == nullptr) return {};
    const Block& block = *std::exchange(open_, nullptr);
    const Json whole = part(block, text_);
    Json fields = part_place();
    fields["text"] = text_;
    if (&block == &kMessage) fields["logprobs"] = Json::array();
    std::string bytes = event(fmt::format("response.{}.done", block.part), fields);
    fields = part_place();
    fields["part"] = whole;
    bytes += event("response.content_part.done", fields);
    last()["content"].push_back(whole);
    return bytes + item_done(status);
  }

  std::string item_done(const char* status) {
    last()["status"] = status;
    return event("response.output_item.done",
                 {{"output_index", output_.size() - 1}, {"item", last()}});
  }

  std::string call(const Piece& piece) override {
    std::string bytes = close("completed");
    output_.push_back({{"id", random_id("fc_")},
                       {"type", "function_call"},
                       {"status", "in_progress"},
                       {"call_id", new_call_id(dialect())},
                       {"name", piece.text},
                       {"arguments", ""}});
    bytes += event("response.output_item.added",
                   {{"output_index", output_.size() - 1}, {"item", last()}});
    Json fields = place();
    fields["delta"] = piece.arguments;
    bytes += event("response.function_call_arguments.delta", fields);
    fields = place();
    fields["name"] = piece.text;
    fields["arguments"] = piece.arguments;
    bytes += event("response.function_call_arguments.done", fields);
    last()["arguments"] = piece.arguments;
    return bytes + item_done("completed");
  }

  Json response(const char* status) const {
    Json out = {{"id", id_}, {"object", "response"}, {"created_at", created_}, {"status", status}};
    out.update(echo_);
    out["error"] = nullptr;
    out["incomplete_details"] = cut() ? Json{{"reason", "max_output_tokens"}} : Json();
    out["output"] = output_;
    const bool known = tally().complete();
    out["usage"] = known ? usage() : Json();
    if (known) out["chimera"] = tally().provenance();
    return out;
  }

  /// What of an answer was reasoning is not counted apart.
  Json usage() const {
    return {{"input_tokens", tally().prompt_tokens},
            {"input_tokens_details", Json{{"cached_tokens", tally().cached_tokens}}},
            {"output_tokens", tally().completion_tokens},
            {"output_tokens_details", Json{{"reasoning_tokens", 0}}},
            {"total_tokens", tally().prompt_tokens + tally().completion_tokens}};
  }

  const Json echo_;
  const std::string id_;
  const int64_t created_;
  Json output_ = Json::array();  // items, the last of them perhaps open
  const Block* open_ = nullptr;  // what the last item is while words may be added
  std::string text_;             // of the open item
  int64_t sequence_ = 0;
};

}  // namespace

Job job_of(ResponseRequest asked) {
  Job job{.model = asked.model,
          .schema_name = "text.format.schema",
          .stream = asked.stream,
          .after_tool = asked.after_tool,
          .rules = asked.rules,
          .shape = ErrorShape::kOpenAi};
  job.answerer = std::make_unique<ResponseAnswer>(asked, std::time(nullptr));
  job.calls.push_back(std::move(asked.call));
  return job;
}

}  // namespace chimera::gateway::openai
