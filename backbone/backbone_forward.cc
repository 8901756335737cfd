// The forward pass: its checks and its order. The blocks are in forward/*.cc.
#include <new>

#include "backbone/backbone.h"
#include "backbone/forward/pass.h"

namespace chimera {
namespace {

Status check_segment(const ModelConfig& c, const BatchSegment& segment) {
  if (segment.tokens.empty())
    return Status(Code::kInvalidArgument, "a segment has no tokens, expected at least one");
  for (int32_t token : segment.tokens)
    if (token < 0 || token >= c.vocab_size)
      return Status(Code::kInvalidArgument, "token id " + std::to_string(token) +
                                                " is out of range, expected 0 to " +
                                                std::to_string(c.vocab_size - 1));
  if (segment.kv == nullptr) return Status(Code::kInvalidArgument, "a segment has no KV sequence");
  const int64_t room =
      static_cast<int64_t>(segment.kv->blocks().size()) * segment.kv->cache().block_tokens();
  const int64_t length = static_cast<int64_t>(segment.tokens.size());
  if (segment.position < 0 || segment.position > room - length)
    return Status(
        Code::kInvalidArgument,
        std::to_string(length) + " tokens from position " + std::to_string(segment.position) +
            " on do not fit the KV blocks of the sequence, which hold " + std::to_string(room),
        "reserve the sequence's blocks first");
  // Beyond this position the reference's dynamic rotation depends on how a sequence was cut into
  // passes; see rope.h.
  if (c.rope.type == RopeType::kDynamic && segment.position + length > c.max_position_embeddings)
    return Status(Code::kUnimplemented,
                  "position " + std::to_string(segment.position + length - 1) +
                      " lies beyond max_position_embeddings " +
                      std::to_string(c.max_position_embeddings) +
                      ", where rope_type \"dynamic\" is not supported",
                  "use shorter sequences, or a checkpoint with rope_type linear, yarn or llama3");
  return Status();
}

}  // namespace

Status Backbone::forward(std::span<BatchSegment> segments, FeedForward& ffn, const Kernels& kernels,
                         ThreadPool& pool, Workspace& ws) const {
  for (const BatchSegment& segment : segments)
    CHIMERA_RETURN_IF_ERROR(check_segment(config_, segment));
  try {
    ForwardPass pass(config_, rope_, segments, kernels, pool, ws);
    pass.prepare();
    pass.embed(embed_);
    pass.rope_angles();
    for (size_t l = 0; l < layers_.size(); ++l)
      CHIMERA_RETURN_IF_ERROR(pass.block(static_cast<int64_t>(l), *layers_[l], ffn));
    pass.states(final_norm_);
    pass.head(final_norm_, head_);
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, "no memory for the scratch of a forward pass",
                  "lower the batch size, or request fewer logits at once");
  }
  return Status();
}

}  // namespace chimera
