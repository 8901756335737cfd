#include "daemon/engine/score_text.h"

#include <string>

namespace chimera {

std::optional<int32_t> score_prefix_token(const Tokenizer* tokenizer, const ModelConfig& model) {
  if (tokenizer != nullptr) {
    const auto start = tokenizer->encode("", {.add_special_tokens = true, .match_special = false});
    if (start.ok() && !start->empty()) return start->front();
  }
  if (!model.eos_token_ids.empty()) return model.eos_token_ids.front();
  if (tokenizer == nullptr) return std::nullopt;
  const int32_t end_of_text = tokenizer->token_id("<|endoftext|>");
  return end_of_text < 0 ? std::nullopt : std::optional(end_of_text);
}

Result<ScoreText> score_text(const Tokenizer& tokenizer, std::optional<int32_t> prefix,
                             std::string_view text, std::string_view what) {
  auto tokens = tokenizer.encode(text, {.add_special_tokens = false, .match_special = false});
  if (!tokens.ok()) return tokens.status().with_context(std::string(what));
  if (tokens->empty()) {
    return Status(Code::kInvalidArgument,
                  std::string(what) + ": empty (expected at least one token)", "send some text");
  }
  ScoreText out;
  out.bytes = static_cast<int64_t>(text.size());
  if (prefix) {
    out.tokens.push_back(*prefix);
  } else {
    out.bytes -= static_cast<int64_t>(tokenizer.token_bytes(tokens->front()).size());
  }
  out.tokens.insert(out.tokens.end(), tokens->begin(), tokens->end());
  return out;
}

}  // namespace chimera
