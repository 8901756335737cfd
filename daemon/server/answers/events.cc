#include "daemon/server/answers/events.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <span>

#include "base/json/writer.h"
#include "base/moment.h"
#include "base/utf8.h"
#include "clients/wire/protocol.h"
#include "clients/wire/strict_json.h"
#include "daemon/server/answers/receipt.h"

namespace chimera {
namespace {

// Long number lists are printed by hand: a routing trace has half a million of them, and through
// values of JSON they would hold up the IO thread ten times as long.
void append_float(fmt::memory_buffer& out, float value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{}", value);
  } else {
    out.append(std::string_view("null"));
  }
}
void append_item(fmt::memory_buffer& out, float value) { append_float(out, value); }
void append_item(fmt::memory_buffer& out, int32_t value) {
  fmt::format_to(std::back_inserter(out), "{}", value);
}

template <class T>
void append_list(fmt::memory_buffer& out, std::span<const T> values) {
  out.push_back('[');
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_item(out, values[i]);
  }
  out.push_back(']');
}

template <class T>
void append_rows(fmt::memory_buffer& out, std::span<const T> values, size_t columns) {
  out.push_back('[');
  for (size_t at = 0; at < values.size(); at += columns) {
    if (at > 0) out.push_back(',');
    append_list(out, values.subspan(at, columns));
  }
  out.push_back(']');
}

/// `object` with `fields` ("\"name\":value,…") put in before its closing brace.
std::string splice(const Json& object, const std::string& fields) {
  std::string text = write_json(object);
  if (fields.empty()) return text;
  text.pop_back();
  return text + "," + fields + "}";
}

std::string logprob_list(const DoneEvent& event) {
  fmt::memory_buffer logprobs;
  append_list(logprobs, std::span<const float>(event.logprobs));
  return "\"logprobs\":" + fmt::to_string(logprobs);
}

/// What might have stood in one place. A text that is no whole characters has its bytes beside it.
Json choices_json(const std::vector<TokenChoice>& choices, const Tokenizer* tokenizer) {
  Json out = Json::array();
  for (const TokenChoice& choice : choices) {
    Json entry = {{"token", choice.token}, {"logprob", choice.logprob}};
    if (tokenizer != nullptr) {
      const std::string_view bytes = tokenizer->token_bytes(choice.token);
      entry["text"] = lossy(bytes);
      if (find_invalid_utf8(bytes)) {
        Json numbers = Json::array();
        for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
        entry["bytes"] = std::move(numbers);
      }
    }
    out.push_back(std::move(entry));
  }
  return out;
}

/// Fields of a score that are lists.
std::string score_lists(const DoneEvent& event) {
  std::string fields = logprob_list(event);
  if (event.routing) fields += ",\"routing\":" + encode_routing(*event.routing);
  return fields;
}

// `out` has what the answers of all calls have.

Answer generation_answer(Json out, const DoneEvent& event, const DoneFormat& format) {
  if (format.stream) return {write_json(out), nullptr, /*final=*/true};
  out["text"] = event.text;
  out["tokens"] = event.tokens;
  if (!event.top_logprobs.empty()) {
    Json places = Json::array();
    for (const auto& top : event.top_logprobs) {
      places.push_back(choices_json(top, format.tokenizer));
    }
    out["top_logprobs"] = std::move(places);
  }
  // Of each token: the float32 that its event would have brought.
  return {splice(out, event.logprobs.empty() ? "" : logprob_list(event)), nullptr, /*final=*/true};
}

Answer score_answer(Json out, const DoneEvent& event, const DoneFormat& format) {
  out["bits_per_byte"] = event.bits_per_byte ? Json(*event.bits_per_byte) : Json();
  out["nats"] = event.nats;
  out["count"] = event.count;
  out["n_tokens"] = event.prompt_tokens;
  if (event.logits && format.vocab > 0) {
    const auto rows = event.logits->size() / static_cast<size_t>(format.vocab);
    out["logits"] = {{"shape", Json::array({rows, format.vocab})}, {"dtype", "float32"}};
  }
  return {splice(out, score_lists(event)), event.logits, /*final=*/true, event.output};
}

Answer embedding_answer(Json out, const DoneEvent& event) {
  out["n_tokens"] = event.prompt_tokens;
  fmt::memory_buffer values;
  append_list(values, std::span<const float>(event.embedding));
  return {splice(out, "\"embedding\":" + fmt::to_string(values)), nullptr, /*final=*/true};
}

std::string encode_event(std::string_view id, std::string_view event, const Json& fields) {
  Json out = {{"id", id}, {"event", event}};
  out.update(fields);
  return write_json(out);
}

}  // namespace

Answer encode_token(std::string_view id, const TokenEvent& event, const Tokenizer* tokenizer) {
  Json out = {{"id", id},
              {"event", "token"},
              {"text", event.text},
              {"token", event.token},
              {"epoch", event.epoch}};
  if (event.logprob) out["logprob"] = *event.logprob;
  if (!event.top.empty()) out["top_logprobs"] = choices_json(event.top, tokenizer);
  if (!event.shares.empty()) out["shares"] = event.shares;
  return {write_json(out), nullptr, /*final=*/false};
}

Answer encode_done(std::string_view id, const DoneEvent& event, const DoneFormat& format) {
  if (format.receipt != nullptr) {
    if (const Status files = check_receipt_files(); !files.ok()) return encode_status(id, files);
  }
  Json out = {{"id", id},
              {"event", "done"},
              {"finish_reason", kFinishReasonNames.name(event.finish_reason)},
              {"usage",
               {{"prompt_tokens", event.prompt_tokens},
                {"completion_tokens", event.completion_tokens},
                {"cached_tokens", event.cached_tokens}}},
              {"timing",
               {{"queue_ms", event.queue_ms},
                {"prefill_ms", event.prefill_ms},
                {"decode_ms", event.decode_ms}}},
              {"provenance", provenance_json(event, /*all_epochs=*/false)}};
  if (format.seed) out["seed"] = *format.seed;
  if (format.receipt != nullptr)
    out["receipt"] =
        make_receipt(*format.receipt, event, format_moment(std::chrono::system_clock::now()));
  switch (format.kind) {
    case EngineRequest::Kind::kGenerate:
      return generation_answer(std::move(out), event, format);
    case EngineRequest::Kind::kScore:
      return score_answer(std::move(out), event, format);
    case EngineRequest::Kind::kEmbed:
      break;
  }
  return embedding_answer(std::move(out), event);
}

Answer encode_status(std::string_view id, const Status& status) {
  const wire::Error error{std::string(code_name(status.code())), status.message(), status.hint()};
  return {wire::encode_error(id, error), nullptr, /*final=*/true};
}

std::string encode_reply(std::string_view id, const Json& fields) {
  return encode_event(id, "done", fields);
}
std::string encode_progress(std::string_view id, const Json& fields) {
  return encode_event(id, "progress", fields);
}

std::string encode_routing(const RoutingTrace& trace) {
  const size_t k = static_cast<size_t>(trace.k);
  const size_t per_layer = static_cast<size_t>(trace.rows) * k;
  const size_t layers = per_layer == 0 ? 0 : trace.ids.size() / per_layer;
  fmt::memory_buffer out;
  fmt::format_to(std::back_inserter(out), "{{\"k\":{},\"layers\":[", trace.k);
  for (size_t layer = 0; layer < layers; ++layer) {
    if (layer > 0) out.push_back(',');
    out.append(std::string_view("{\"ids\":"));
    append_rows(out, std::span(trace.ids).subspan(layer * per_layer, per_layer), k);
    out.append(std::string_view(",\"weights\":"));
    append_rows(out, std::span(trace.weights).subspan(layer * per_layer, per_layer), k);
    out.push_back('}');
  }
  out.append(std::string_view("]}"));
  return fmt::to_string(out);
}

}  // namespace chimera
