#include "clients/gateway/openai/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/json/writer.h"
#include "clients/gateway/body/random_id.h"

namespace chimera::gateway::openai {
namespace {

std::string server_sent(const std::string& data) { return "data: " + data + "\n\n"; }

Json bytes_of(std::string_view text) {
  Json out = Json::array();
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

/// In UTF-8, every byte but those that continue a character.
size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

/// Alternatives as the chat API has them. -9999 is its word for impossible.
Json alternatives_of(const Json& choices) {
  Json out = Json::array();
  for (const Json& choice : choices) {
    const std::string text = choice.value("text", "");
    out.push_back({{"token", text},
                   {"logprob", choice["logprob"].number().value_or(-9999.0)},
                   {"bytes", choice.contains("bytes") ? choice["bytes"] : bytes_of(text)}});
  }
  return out;
}

/// The same for /v1/completions: by text, and always with the token that was chosen. Of several
/// with the same text, which are parts of characters, the likeliest counts.
Json by_text(const Json& token) {
  Json out = Json::object();
  for (const Json& choice : token["top_logprobs"]) {
    const std::string& text = *choice["token"].string();
    if (!out.contains(text)) out[text] = choice["logprob"];
  }
  const std::string& chosen = *token["token"].string();
  if (!chosen.empty() && !out.contains(chosen)) out[chosen] = token["logprob"];
  return out;
}

/// As the API of /v1/completions writes them: parallel arrays; offsets count characters.
Json parallel(const Json& tokens, size_t offset, bool alternatives) {
  Json texts = Json::array(), values = Json::array(), offsets = Json::array();
  Json tops = Json::array();
  for (const Json& token : tokens) {
    texts.push_back(token["token"]);
    values.push_back(token["logprob"]);
    offsets.push_back(offset);
    if (alternatives) tops.push_back(by_text(token));
    offset += characters(*token["token"].string());
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", alternatives ? std::move(tops) : Json()},
          {"text_offset", std::move(offsets)}};
}

}  // namespace

Answer::Answer(const Completion& asked, std::string id, int64_t created)
    : api_(asked.api),
      model_(asked.model),
      id_(std::move(id)),
      created_(created),
      logprobs_(asked.logprobs),
      alternatives_(asked.top_logprobs > 0),
      shares_(asked.shares),
      include_usage_(asked.include_usage),
      stream_(asked.stream),
      rules_(asked.rules),
      choices_(asked.calls.size()),
      tally_(asked.calls.size(), asked.per_prompt) {
  reads({});
}

void Answer::reads(const Reading& reading) {
  dialect_ = reading.dialect;
  for (Choice& choice : choices_) choice.parser = make_parser(reading, rules_.tools);
}

Json Answer::take(Choice& choice, std::vector<Piece> pieces) {
  Json more = Json::object();
  const auto grow = [&more](const char* name, const std::string& text) {
    more[name] = more.value(name, "") + text;
  };
  for (Piece& piece : pieces) {
    switch (piece.kind) {
      case Piece::Kind::kText:
        grow("content", piece.text);
        choice.text += piece.text;
        break;
      case Piece::Kind::kReasoning:
        grow("reasoning_content", piece.text);
        choice.reasoning += piece.text;
        break;
      case Piece::Kind::kCall: {
        if (!rules_.parallel && !choice.calls.empty()) break;
        Json call = {
            {"id", new_call_id(dialect_)},
            {"type", "function"},
            {"function",
             {{"name", std::move(piece.text)}, {"arguments", std::move(piece.arguments)}}}};
        choice.calls.push_back(call);
        call["index"] = choice.calls.size() - 1;
        more["tool_calls"].push_back(std::move(call));
        break;
      }
    }
  }
  return more;
}

std::string Answer::on_token(size_t choice, const Json& event) {
  Choice& state = choices_[choice];
  const std::string text = event.value("text", "");
  tally_.token(event);
  Json of_token = Json::array();
  if (logprobs_) {
    of_token.push_back({{"token", text},
                        {"logprob", event["logprob"]},
                        {"bytes", bytes_of(text)},
                        {"top_logprobs", alternatives_of(event["top_logprobs"])}});
    state.logprobs.push_back(of_token[0]);
  }
  Json more = take(state, state.parser->push(text));
  if (!stream_ || (more.empty() && !logprobs_ && !shares_ && state.begun)) return {};
  Json next = chunk(choice, std::move(more), std::move(of_token), nullptr);
  if (shares_) next["chimera"]["shares"] = event["shares"];
  return sent(std::move(next));
}

std::string Answer::on_done(size_t choice, const Json& done) {
  Choice& state = choices_[choice];
  tally_.done(choice, done);
  // Without token events; where there were some, for their logprobs, it has no text.
  if (!stream_) take(state, state.parser->push(done.value("text", "")));
  Json more = take(state, state.parser->finish());
  state.finish_reason = done.value("finish_reason", "");
  if (!state.calls.empty() && state.finish_reason == "stop") state.finish_reason = "tool_calls";
  if (!stream_) return {};
  std::string bytes;
  // Clients take the last chunk for one without words.
  if (!more.empty()) bytes = sent(chunk(choice, std::move(more), Json::array(), nullptr));
  Json last = chunk(choice, Json::object(), Json::array(), state.finish_reason);
  last["chimera"] = tally_.provenance();
  return bytes + sent(std::move(last));
}

std::string Answer::sent(Json chunk) const {
  if (include_usage_) chunk["usage"] = nullptr;  // as the API says, in all chunks but the last
  return server_sent(write_json(chunk));
}

std::string Answer::end() {
  std::string bytes;
  if (include_usage_) {
    Json last = envelope(/*is_chunk=*/true);
    last["choices"] = Json::array();
    last["usage"] = usage();
    last["chimera"] = tally_.provenance();
    bytes = server_sent(write_json(last));
  }
  return bytes + server_sent("[DONE]");
}

std::string Answer::failed(const ApiError& error) {
  return server_sent(error_body(ErrorShape::kOpenAi, error));
}

Json Answer::envelope(bool is_chunk) const {
  const char* object = api_ == Api::kText ? "text_completion"
                       : is_chunk         ? "chat.completion.chunk"
                                          : "chat.completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

Json Answer::chunk(size_t choice, Json more, Json logprobs, Json finish_reason) {
  Choice& state = choices_[choice];
  Json entry = {{"index", choice}};
  const std::string text = more.value("content", "");
  if (api_ == Api::kChat) {
    Json delta = Json::object();
    if (!state.begun) delta = {{"role", "assistant"}, {"content", ""}};
    delta.update(more);
    entry["delta"] = std::move(delta);
  } else {
    entry["text"] = text;
  }
  if (logprobs.empty()) {
    entry["logprobs"] = nullptr;
  } else if (api_ == Api::kChat) {
    entry["logprobs"] = {{"content", std::move(logprobs)}, {"refusal", nullptr}};
  } else {
    entry["logprobs"] =
        parallel(logprobs, characters(state.text) - characters(text), alternatives_);
  }
  entry["finish_reason"] = std::move(finish_reason);
  state.begun = true;
  Json out = envelope(/*is_chunk=*/true);
  out["choices"] = Json::array({std::move(entry)});
  if (tally_.epoch() != 0) out["chimera"] = {{"epoch", tally_.epoch()}};
  return out;
}

Json Answer::logprobs_of(const Choice& choice) const {
  if (!logprobs_) return nullptr;
  if (api_ == Api::kText) return parallel(choice.logprobs, 0, alternatives_);
  return {{"content", choice.logprobs}, {"refusal", nullptr}};
}

/// As the API has it: null where calls are all there is.
Json Answer::message_of(const Choice& choice) const {
  const bool silent = choice.text.empty() && !choice.calls.empty();
  Json out = {{"role", "assistant"},
              {"content", silent ? Json() : Json(choice.text)},
              {"refusal", nullptr}};
  if (!choice.reasoning.empty()) out["reasoning_content"] = choice.reasoning;
  if (!choice.calls.empty()) out["tool_calls"] = choice.calls;
  return out;
}

std::string Answer::whole() {
  Json out = envelope(/*is_chunk=*/false);
  Json list = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    Json entry = {{"index", i}};
    if (api_ == Api::kChat) {
      entry["message"] = message_of(choice);
    } else {
      entry["text"] = choice.text;
    }
    entry["logprobs"] = logprobs_of(choice);
    entry["finish_reason"] = choice.finish_reason;
    list.push_back(std::move(entry));
  }
  out["choices"] = std::move(list);
  out["usage"] = usage();
  out["chimera"] = tally_.provenance();
  return write_json(out);
}

Json Answer::usage() const {
  return {{"prompt_tokens", tally_.prompt_tokens},
          {"completion_tokens", tally_.completion_tokens},
          {"total_tokens", tally_.prompt_tokens + tally_.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", tally_.cached_tokens}}}};
}

Job job_of(Completion asked) {
  std::string id = random_id(asked.api == Api::kChat ? "chatcmpl-" : "cmpl-");
  Job job{.model = asked.model,
          .schema_name = "response_format.json_schema.schema",
          .stream = asked.stream,
          .shape = ErrorShape::kOpenAi};
  job.answerer = std::make_unique<Answer>(asked, std::move(id), std::time(nullptr));
  job.after_tool = asked.after_tool;
  job.rules = std::move(asked.rules);
  job.calls = std::move(asked.calls);
  return job;
}

}  // namespace chimera::gateway::openai
