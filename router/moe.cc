#include "router/moe.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>

#include "router/moe_impl.h"

namespace chimera {
namespace {

// What choosing experts costs per candidate (an exp and a comparison), in multiply-adds.
constexpr int64_t kSelectWork = 512;

/// Of the passes of all routers of the process, from 1 on.
uint64_t next_pass() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

void set_adapters(RouteView* view, std::vector<std::shared_ptr<const Adapter>> adapters) {
  view->has_adapters = adapters.size() == view->active->adapters.size();
  view->adapters.clear();
  view->backbone_adapters.clear();
  for (const auto& adapter : adapters) {
    view->adapters.push_back(adapter.get());
    view->backbone_adapters.push_back(&adapter->backbone);
  }
  view->held = std::move(adapters);
}

/// What is in memory of them; nothing where one is missing, so that who waits for it keeps no
/// other.
std::vector<std::shared_ptr<const Adapter>> held_adapters(const ActiveSet& active) {
  std::vector<std::shared_ptr<const Adapter>> held;
  for (const Module* module : active.adapters) {
    held.push_back(module->hold_adapter());
    if (held.back() == nullptr) return {};
  }
  return held;
}

}  // namespace

Result<std::shared_ptr<const RouteView>> make_route_view(std::shared_ptr<const RoutingTable> table,
                                                         const ModuleMask& mask,
                                                         std::vector<float> request_bias) {
  const size_t modules = table->modules().size();
  if (!request_bias.empty() && request_bias.size() != modules) {
    return Status(Code::kInternal, fmt::format("request bias: {} values (expected {})",
                                               request_bias.size(), modules));
  }
  for (size_t i = 0; i < request_bias.size(); ++i) {
    if (std::isfinite(request_bias[i])) continue;
    return Status(Code::kInvalidArgument,
                  fmt::format("modules.bias of {}: {} (expected a finite number)",
                              table->modules()[i]->name(), request_bias[i]));
  }
  const ModuleMask used = (mask & table->all()).add(0);
  auto view = std::make_shared<RouteView>();
  view->active = table->layout()->active(used);
  view->top_k = table->top_k(view->mask());
  view->scope = table->scope(view->mask(), request_bias);
  view->request_bias = std::move(request_bias);
  view->table = std::move(table);
  set_adapters(view.get(), held_adapters(*view->active));
  return std::shared_ptr<const RouteView>(std::move(view));
}

std::shared_ptr<const RouteView> with_adapters(
    const RouteView& view, std::vector<std::shared_ptr<const Adapter>> adapters) {
  auto whole = std::make_shared<RouteView>(view);
  set_adapters(whole.get(), std::move(adapters));
  return whole;
}

std::shared_ptr<const RouteView> without_adapters(const RouteView& view) {
  return with_adapters(view, {});
}

std::shared_ptr<const RouteView> same_view(const RouteView& view,
                                           const std::shared_ptr<const RoutingTable>& table) {
  if (!view.table->same_scope(*table, view.mask())) return nullptr;
  auto same = std::make_shared<RouteView>(view);
  same->table = table;
  return same;
}

void add_biases(const RouteView& view, size_t layer, size_t first, std::span<float> logits) {
  const LayerTable& part = view.table->layers()[layer];
  const int32_t* const candidates = view.active->layers[layer].candidates.data() + first;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto c = static_cast<size_t>(candidates[i]);
    const auto owner = static_cast<size_t>(part.owner[c]);
    logits[i] = logits[i] + (part.bias[c] + view.table->module_bias(owner)) +
                (view.request_bias.empty() ? 0.0f : view.request_bias[owner]);
  }
}

int32_t choose_biased(const RouteView& view, size_t layer, std::span<const float> logits,
                      std::span<GateChoice> out, float* entropy, const SoftmaxSums* sums) {
  const ActiveLayer& active = view.active->layers[layer];
  // A true -infinity must not pass for a masked expert.
  for (const float logit : logits) {
    if (!std::isfinite(logit)) return -1;
  }
  const int count =
      select_experts(view.table->gate_rule(), {logits, active.correction, active.group}, view.top_k,
                     out, entropy, sums);
  for (int j = 0; j < count; ++j) {
    int32_t& expert = out[static_cast<size_t>(j)].expert;
    expert = active.candidates[static_cast<size_t>(expert)];
  }
  return count;
}

int32_t choose_experts(const RouteView& view, size_t layer, std::span<float> logits,
                       std::span<GateChoice> out, float* entropy) {
  add_biases(view, layer, 0, logits);
  return choose_biased(view, layer, logits, out, entropy, nullptr);
}

void RoutingTrace::reserve(int64_t layers, int64_t want_rows, int64_t want_k) {
  const int64_t new_rows = std::max(rows, want_rows);
  const int64_t new_k = std::max(k, want_k);
  const auto size = static_cast<size_t>(layers * new_rows * new_k);
  if (new_rows == rows && new_k == k && ids.size() == size) return;
  std::vector<int32_t> new_ids(size, -1);
  std::vector<float> new_weights(size, 0.0f);
  const auto old_size = static_cast<size_t>(layers * rows * k);
  if (ids.size() == old_size && weights.size() == old_size) {
    for (int64_t from = 0; from < layers * rows; ++from) {
      const int64_t to = from / rows * new_rows + from % rows;
      std::copy_n(ids.begin() + from * k, k, new_ids.begin() + to * new_k);
      std::copy_n(weights.begin() + from * k, k, new_weights.begin() + to * new_k);
    }
  }
  ids = std::move(new_ids);
  weights = std::move(new_weights);
  rows = new_rows;
  k = new_k;
}

void MoeRouter::Impl::note_adapters(const RoutedSegment& segment) {
  if (stats != nullptr) {
    for (const Module* module : segment.view->active->adapters)
      stats->last_pass[module->name()] = stats->pass;
  }
  if (!segment.provisional) add_adapter_rows(segment);
}

void MoeRouter::Impl::begin(std::span<RoutedSegment> given, RouterStats* pass_stats) {
  segments = given;
  pass = takes_time ? 0 : next_pass();
  stats = pass_stats;
  runs.clear();
  segment_index.clear();
  rows = stride = candidates = 0;
  has_adapters = false;
  provisional_rows = 0;
  places.clear();
  kept_layers.clear();
  kept_choices.clear();
  kept_chosen.clear();
  kept_entropy.clear();
  for (size_t s = 0; s < segments.size(); ++s) {
    RoutedSegment& segment = segments[s];
    segment.poisoned = segment.lost_call = segment.late = false;
    segment.dropped = 0;
    segment.failure = Status();
    if (segment.last_row != nullptr) *segment.last_row = {};
    const ActiveSet* active = segment.view->active.get();
    if (runs.empty() || runs.back().active != active) runs.push_back({active, rows, 0});
    has_adapters = has_adapters || !active->adapters.empty();
    if (!active->adapters.empty()) note_adapters(segment);
    runs.back().rows += segment.rows;
    rows += segment.rows;
    places.push_back({rows - segment.rows, provisional_rows});
    if (segment.provisional) provisional_rows += segment.rows;
    segment_index.resize(static_cast<size_t>(rows), static_cast<int32_t>(s));
    stride = std::max(stride, segment.view->top_k);
    candidates = std::max(candidates, active->most);
    if (segment.trace != nullptr) {
      segment.trace->reserve(config.num_layers, segment.trace_row + segment.rows,
                             segment.view->top_k);
    }
  }
  if (stats != nullptr && stats->layers.size() < static_cast<size_t>(config.num_layers)) {
    stats->layers.resize(static_cast<size_t>(config.num_layers));
  }
  const auto n = static_cast<size_t>(rows);
  const auto k = static_cast<size_t>(stride);
  logits.resize(n * static_cast<size_t>(candidates));
  choices.resize(n * k);
  chosen.resize(n);
  entropy.resize(n);
  choice_group.resize(n * k);
  place.resize(n * k);
  bad_row.resize(n);
}

void MoeRouter::Impl::gate(size_t layer, const float* x) {
  const int64_t hidden = config.hidden_size;
  for (const Run& run : runs) {
    const ActiveLayer& active = run.active->layers[layer];
    const auto count = static_cast<int64_t>(active.candidates.size());
    if (run.rows < pool.threads() && count > moe_grain(hidden)) {
      gate_by_candidates(layer, run, x);
      continue;
    }
    const int64_t work = count * (hidden + kSelectWork);
    pool.parallel_for(run.rows, moe_grain(work), [&](int64_t begin, int64_t end) {
      const int64_t first = run.row0 + begin;
      for (const GateBlock& block : active.blocks) {
        kernels.matmul(x + first * hidden, end - begin, hidden, block.gate, 0, block.gate.rows,
                       logits.data() + first * candidates + block.first, candidates);
      }
      for (int64_t row = first; row < run.row0 + end; ++row) choose(layer, row);
    });
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (chosen[static_cast<size_t>(row)] >= 0) continue;
    poison(row, Status(Code::kUnavailable,
                       fmt::format("layer {}: the gate gave a non-finite score", layer)));
  }
}

/// For fewer rows than threads: the threads share the candidates of all of them.
void MoeRouter::Impl::gate_by_candidates(size_t layer, const Run& run, const float* x) {
  const int64_t hidden = config.hidden_size;
  const ActiveLayer& active = run.active->layers[layer];
  const auto count = static_cast<int64_t>(active.candidates.size());
  pool.parallel_for(count, moe_grain(run.rows * hidden), [&](int64_t begin, int64_t end) {
    for (const GateBlock& block : active.blocks) {
      const int64_t from = std::max<int64_t>(begin - block.first, 0);
      const int64_t to = std::min<int64_t>(end - block.first, block.gate.rows);
      if (from >= to) continue;
      kernels.matmul(x + run.row0 * hidden, run.rows, hidden, block.gate, from, to,
                     logits.data() + run.row0 * candidates + block.first, candidates);
    }
    for (int64_t row = run.row0; row < run.row0 + run.rows; ++row) {
      add_biases(*segment_of(row).view, layer, static_cast<size_t>(begin),
                 {logits.data() + row * candidates + begin, static_cast<size_t>(end - begin)});
    }
  });
  const bool summed = sum_candidates(layer, run);
  const int64_t work = count * (summed ? kSelectWork / 16 : kSelectWork);
  pool.parallel_for(run.rows, moe_grain(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RowSums& row = row_sums[static_cast<size_t>(i)];
      const SoftmaxSums sums{row.exponentials, row.surprise};
      choose_biased(layer, run.row0 + i, summed ? &sums : nullptr);
    }
  });
}

/// An exp for each of very many candidates is most of choosing: the threads share that, too. Sums
/// in fixed point are the same whoever adds what. False where there is nothing to sum.
bool MoeRouter::Impl::sum_candidates(size_t layer, const Run& run) {
  if (!sums_candidates(segment_of(run.row0).view->table->gate_rule())) return false;
  const size_t count = run.active->layers[layer].candidates.size();
  const auto logits_of = [&](int64_t i) {
    return std::span<const float>(logits.data() + (run.row0 + i) * candidates, count);
  };
  for (int64_t i = 0; i < run.rows; ++i) {
    RowSums& row = row_sums[static_cast<size_t>(i)];
    row.max = largest_logit(logits_of(i));
    row.exponentials = row.surprise = 0;
  }
  const int64_t grain = moe_grain(run.rows * kSelectWork);
  pool.parallel_for(static_cast<int64_t>(count), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < run.rows; ++i) {
      RowSums& row = row_sums[static_cast<size_t>(i)];
      if (!std::isfinite(row.max)) continue;  // whoever chooses says so
      const SoftmaxSums part = softmax_sums(
          logits_of(i).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
          row.max);
      row.exponentials.fetch_add(part.exponentials, std::memory_order_relaxed);
      row.surprise.fetch_add(part.surprise, std::memory_order_relaxed);
    }
  });
  return true;
}

void MoeRouter::Impl::choose(size_t layer, int64_t row) {
  const RouteView& view = *segment_of(row).view;
  const size_t active = view.active->layers[layer].candidates.size();
  if (!segment_of(row).poisoned)
    add_biases(view, layer, 0, {logits.data() + row * candidates, active});
  choose_biased(layer, row, nullptr);
}

void MoeRouter::Impl::choose_biased(size_t layer, int64_t row, const SoftmaxSums* sums) {
  const RoutedSegment& segment = segment_of(row);
  int32_t& count = chosen[static_cast<size_t>(row)];
  count = 0;
  if (segment.poisoned) return;
  const size_t active = segment.view->active->layers[layer].candidates.size();
  count = chimera::choose_biased(*segment.view, layer, {logits.data() + row * candidates, active},
                                 {choices_of(row), static_cast<size_t>(stride)},
                                 &entropy[static_cast<size_t>(row)], sums);
}

MoeRouter::MoeRouter(const ModelConfig& config, const Kernels& kernels, ThreadPool& pool)
    : impl_(std::make_unique<Impl>(config, kernels, pool)) {}

MoeRouter::~MoeRouter() = default;

void MoeRouter::begin_pass(std::span<RoutedSegment> segments, RouterStats* stats) {
  impl_->begin(segments, stats);
}

void MoeRouter::take_time() { impl_->takes_time = true; }

void MoeRouter::count(size_t segment) { impl_->count(segment); }

Status MoeRouter::forward(int64_t layer, const float* x, int64_t rows, float* y) {
  if (rows != impl_->rows || layer < 0 || layer >= impl_->config.num_layers) {
    return {Code::kInternal, fmt::format("router: layer {} with {} rows (expected {} rows, layers "
                                         "0 to {})",
                                         layer, rows, impl_->rows, impl_->config.num_layers - 1)};
  }
  const auto at = static_cast<size_t>(layer);
  impl_->gate(at, x);
  impl_->account(at);
  impl_->group_rows(at);
  impl_->run_experts(at, x);
  impl_->settle(at);
  impl_->combine(at, y);
  return {};
}

}  // namespace chimera
