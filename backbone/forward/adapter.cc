// What adapters add to the products of a layer. One loop over all adapters of the batch for each
// group of products.
#include "backbone/forward/adapter.h"

#include <algorithm>

#include "backbone/forward/pass.h"
#include "compute/adapted_linear.h"

namespace chimera {

void ForwardPass::prepare_adapters() {
  ws_.adapted.clear();
  int64_t row = 0;
  for (size_t s = 0; s < segments_.size();) {
    const auto adapters = segments_[s].adapters;
    const int64_t first = row;
    for (; s < segments_.size() && std::ranges::equal(segments_[s].adapters, adapters); ++s)
      row += static_cast<int64_t>(segments_[s].tokens.size());
    for (const BackboneAdapter* adapter : adapters)
      ws_.adapted.push_back({adapter, first, row - first});
  }
}

void ForwardPass::multiply(int64_t layer, std::initializer_list<Product> products) {
  ws_.head_ops.clear();
  for (const Product& p : products) ws_.head_ops.push_back({p.x, p.weight, p.y});
  std::vector<LowRankOp>& changes = ws_.low_rank_ops;
  changes.clear();
  for (const AdaptedRows& part : ws_.adapted) {
    const LayerAdapter& adapter = part.adapter->layers[static_cast<size_t>(layer)];
    for (const Product& p : products) {
      const LowRank* change = adapter.find(p.role);
      if (change == nullptr) continue;
      changes.push_back({change, p.x + part.first * change->inputs(),
                         p.y + part.first * change->outputs(), part.rows});
    }
  }
  adapted_linear(kernels_, pool_, rows_, ws_.head_ops, changes, ws_.low_rank);
}

void ForwardPass::adapt_k_up(int64_t layer) {
  std::vector<LowRankOp>& ops = ws_.low_rank_ops;
  ops.clear();
  const int64_t from = q_width();
  const int64_t to = c_.num_heads * c_.key_width();
  for (const AdaptedRows& part : ws_.adapted) {
    const std::vector<LowRank>& heads = part.adapter->layers[static_cast<size_t>(layer)].k_up;
    for (size_t h = 0; h < heads.size(); ++h) {
      const auto head = static_cast<int64_t>(h);
      ops.push_back({&heads[h], ws_.q.data() + part.first * from + head * c_.head_dim,
                     ws_.q_latent.data() + part.first * to + head * c_.key_width(), part.rows, from,
                     to});
    }
  }
  if (!ops.empty()) add_low_rank(kernels_, pool_, ops, ws_.low_rank);
}

void ForwardPass::adapt_v_up(int64_t layer) {
  std::vector<LowRankOp>& ops = ws_.low_rank_ops;
  ops.clear();
  const int64_t rank = c_.mla->kv_lora_rank;
  const int64_t from = c_.num_heads * rank;
  const int64_t to = c_.num_heads * c_.v_head_dim;
  for (const AdaptedRows& part : ws_.adapted) {
    const std::vector<LowRank>& heads = part.adapter->layers[static_cast<size_t>(layer)].v_up;
    for (size_t h = 0; h < heads.size(); ++h) {
      const auto head = static_cast<int64_t>(h);
      ops.push_back({&heads[h], ws_.attn_latent.data() + part.first * from + head * rank,
                     ws_.attn.data() + part.first * to + head * c_.v_head_dim, part.rows, from,
                     to});
    }
  }
  if (!ops.empty()) add_low_rank(kernels_, pool_, ops, ws_.low_rank);
}

}  // namespace chimera
