#include "daemon/engine/request_check.h"

#include <fmt/format.h>

#include "daemon/engine/sequence/sampler.h"

namespace chimera {
namespace {

Status check_tokens(const EngineRequest& request, const ModelConfig& config) {
  if (request.tokens.empty())
    return {Code::kInvalidArgument, "the request has no tokens (expected at least one)",
            "give a text that is not empty, or at least one token id"};
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    const int32_t id = request.tokens[i];
    if (id < 0 || id >= config.vocab_size)
      return {Code::kInvalidArgument,
              fmt::format("tokens[{}] is {} (expected 0 to {}, the vocabulary)", i, id,
                          config.vocab_size - 1),
              "encode the text with the tokenizer of this checkpoint"};
  }
  return {};
}

/// The smaller of serve.max_context and what the model takes; says which, because only the one can
/// be raised.
std::string limit_name(const ModelConfig& config, const EngineOptions& options) {
  return options.max_context < config.max_position_embeddings ? "max_context"
                                                              : "the model's context";
}
std::string limit_hint(std::string_view advice, const ModelConfig& config,
                       const EngineOptions& options) {
  const bool can_be_raised = options.max_context < config.max_position_embeddings;
  return fmt::format("{}{}", advice, can_be_raised ? ", or raise serve.max_context" : "");
}

/// Of a text that is read, and not continued.
Status check_length(const EngineRequest& request, const ModelConfig& config,
                    const EngineOptions& options) {
  const auto n = static_cast<int64_t>(request.tokens.size());
  if (n > options.max_context)
    return {Code::kInvalidArgument,
            fmt::format("the text has {} tokens (expected at most {}, {})", n, options.max_context,
                        limit_name(config, options)),
            limit_hint("send it in parts", config, options)};
  return {};
}

Status check_score(const EngineRequest& request, const ModelConfig& config,
                   const EngineOptions& options) {
  CHIMERA_RETURN_IF_ERROR(check_length(request, config, options));
  const auto n = static_cast<int64_t>(request.tokens.size());
  const int64_t bytes = n * config.vocab_size * static_cast<int64_t>(sizeof(float));
  if (request.want_logits && bytes > kMaxLogitsBytes)
    return {Code::kResourceExhausted,
            fmt::format("the logits of {} tokens take {} bytes (expected at most {})", n, bytes,
                        kMaxLogitsBytes),
            fmt::format("score at most {} tokens at once, or leave logits out",
                        kMaxLogitsBytes / (config.vocab_size * 4))};
  return {};
}

Status check_generate(const EngineRequest& request, const ModelConfig& config,
                      const EngineOptions& options, bool has_tokenizer) {
  const auto n = static_cast<int64_t>(request.tokens.size());
  if (n >= options.max_context)
    return {Code::kInvalidArgument,
            fmt::format("the prompt has {} tokens (expected fewer than {}, {})", n,
                        options.max_context, limit_name(config, options)),
            limit_hint("shorten the prompt", config, options)};
  if (request.max_tokens < 1)
    return {Code::kInvalidArgument,
            fmt::format("max_tokens is {} (expected at least 1)", request.max_tokens),
            "ask for at least one token"};
  CHIMERA_RETURN_IF_ERROR(check_sampling(request.sampling));
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (id < 0 || id >= config.vocab_size)
      return {Code::kInvalidArgument,
              fmt::format("logit_bias.{} (expected token ids from 0 to {}, the vocabulary)", id,
                          config.vocab_size - 1),
              "take the ids from `tokenize` of this daemon"};
  }
  if (request.constraint && request.ignore_eos)
    return {Code::kInvalidArgument,
            "ignore_eos is true beside a constraint (expected false: a complete answer ends)",
            "leave one of them out"};
  if (!request.stop.empty() && !has_tokenizer)
    return {Code::kInvalidArgument, "stop strings need text, and this checkpoint has no tokenizer",
            "leave stop out and compare token ids on the client's side"};
  for (size_t i = 0; i < request.stop.size(); ++i) {
    const std::string& stop = request.stop[i];
    // A continuation byte in front could match in the middle of a character and split it.
    if (stop.empty() || (static_cast<unsigned char>(stop.front()) & 0xC0) == 0x80)
      return {Code::kInvalidArgument,
              fmt::format("stop[{}] {} (expected UTF-8 text that is not empty)", i,
                          stop.empty() ? "is empty" : "starts inside a character"),
              "leave it out"};
  }
  return {};
}

}  // namespace

Status check_request(const EngineRequest& request, const ModelConfig& config,
                     const EngineOptions& options, bool has_tokenizer) {
  CHIMERA_RETURN_IF_ERROR(check_tokens(request, config));
  switch (request.kind) {
    case EngineRequest::Kind::kScore:
      return check_score(request, config, options);
    case EngineRequest::Kind::kEmbed:
      return check_length(request, config, options);
    case EngineRequest::Kind::kGenerate:
      return check_generate(request, config, options, has_tokenizer);
  }
  return {Code::kInternal, "the request is of no known kind"};
}

}  // namespace chimera
