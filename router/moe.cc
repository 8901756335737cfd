#include "router/moe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "router/drop.h"
#include "router/gating.h"

namespace chimera {
namespace {

// Work per hand-over to the pool, in multiply-adds: about 3 us on one core, several times what
// waking a spinning worker costs.
constexpr int64_t kGrainWork = 1 << 16;
// What choosing experts costs per candidate (an exp and a comparison), in multiply-adds.
constexpr int64_t kSelectWork = 512;

int64_t grain_for(int64_t work_per_row) {
  return std::max<int64_t>(1, kGrainWork / std::max<int64_t>(1, work_per_row));
}

bool all_finite(const float* values, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

/// Segments next to one another that are on the same table.
struct Run {
  const RoutingTable* table = nullptr;
  int64_t row0 = 0;
  int64_t rows = 0;
};

/// All rows of the batch that chose one expert.
struct Group {
  const Expert* expert = nullptr;
  int64_t begin = 0;  // of its rows in the entry order
  int64_t count = 0;
};

}  // namespace

Result<std::shared_ptr<const RouteView>> make_route_view(std::shared_ptr<const RoutingTable> table,
                                                         ModuleMask mask,
                                                         std::vector<float> request_bias) {
  const size_t modules = table->modules().size();
  if (!request_bias.empty() && request_bias.size() != modules) {
    return Status(Code::kInternal, fmt::format("request bias: {} values (expected {})",
                                               request_bias.size(), modules));
  }
  request_bias.resize(modules, 0.0f);
  for (size_t i = 0; i < modules; ++i) {
    if (std::isfinite(request_bias[i])) continue;
    return Status(Code::kInvalidArgument,
                  fmt::format("modules.bias of {}: {} (expected a finite number)",
                              table->modules()[i]->name(), request_bias[i]));
  }
  auto view = std::make_shared<RouteView>();
  view->mask = (mask & table->all()) | 1;
  view->active = table->active(view->mask);
  view->scope = table->scope(view->mask, request_bias);
  view->request_bias = std::move(request_bias);
  view->table = std::move(table);
  return std::shared_ptr<const RouteView>(std::move(view));
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

struct MoeRouter::Impl {
  Impl(const ModelConfig& c, const Kernels& k, ThreadPool& p) : config(c), kernels(k), pool(p) {}

  void begin(std::span<RoutedSegment> pass, RouterStats* pass_stats);
  void gate(size_t layer, const float* x);
  void choose(size_t layer, int64_t row);
  void account(size_t layer);
  void account_segment(const LayerTable& table, RoutedSegment& segment, int64_t row0, size_t layer);
  void account_run(size_t layer, const Run& run);
  void group_rows(size_t layer);
  void run_experts(size_t layer, const float* x);
  void combine(size_t layer, float* y);
  void fail_group(size_t layer, const Group& group, const Status& why);
  void drop_bad_rows(size_t layer, const Group& group);
  void drop_entry(size_t layer, int64_t entry, const Status& why);
  void fail_row(size_t layer, int64_t row);
  void poison(int64_t row, Status why);

  GateChoice* choices_of(int64_t row) { return choices.data() + row * stride; }
  RoutedSegment& segment_of(int64_t row) {
    return segments[static_cast<size_t>(segment_index[static_cast<size_t>(row)])];
  }
  const LayerTable& table_of(int64_t row, size_t layer) {
    return segment_of(row).view->table->layers()[layer];
  }
  /// "module legal, layer 2, expert 0" of candidate `c`.
  std::string expert_label(int64_t row, size_t layer, int32_t c);

  const ModelConfig config;
  const Kernels& kernels;
  ThreadPool& pool;

  std::span<RoutedSegment> segments;
  RouterStats* stats = nullptr;
  std::vector<Run> runs;
  std::vector<int32_t> segment_index;  // [rows]
  int64_t rows = 0;
  int64_t stride = 0;      // choices kept per row: the largest top_k of the pass
  int64_t candidates = 0;  // logits kept per row: the most candidates of a layer of the pass

  std::vector<float> logits;        // [rows, candidates]
  std::vector<GateChoice> choices;  // [rows, stride]
  std::vector<int32_t> chosen;      // [rows] number of choices; -1: not to be used
  std::vector<float> entropy;       // [rows]
  std::vector<double> mass;         // [modules] scratch
  std::vector<uint64_t> counts;     // [candidates] scratch
  std::vector<int32_t> group_of;    // [candidates] scratch
  std::vector<Group> groups;
  std::vector<int32_t> choice_group;  // [rows, stride]
  std::vector<int64_t> place;         // [rows, stride] entry of every choice
  std::vector<int64_t> entry_row;     // [entries]
  std::vector<float> gathered;        // [largest group, hidden]
  std::vector<float> outputs;         // [entries, hidden]
  std::vector<float> scratch;         // lent to the experts
  std::vector<uint8_t> bad_row;       // [rows]
};

void MoeRouter::Impl::begin(std::span<RoutedSegment> pass, RouterStats* pass_stats) {
  segments = pass;
  stats = pass_stats;
  runs.clear();
  segment_index.clear();
  rows = stride = candidates = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    RoutedSegment& segment = segments[s];
    segment.poisoned = false;
    segment.dropped = 0;
    segment.failure = Status();
    const RoutingTable* table = segment.view->table.get();
    if (runs.empty() || runs.back().table != table) runs.push_back({table, rows, 0});
    runs.back().rows += segment.rows;
    rows += segment.rows;
    segment_index.resize(static_cast<size_t>(rows), static_cast<int32_t>(s));
    stride = std::max(stride, table->top_k());
    for (const LayerTable& layer : table->layers()) {
      candidates = std::max(candidates, layer.candidates);
    }
    if (segment.trace != nullptr) {
      segment.trace->reserve(config.num_layers, segment.trace_row + segment.rows, table->top_k());
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
    const LayerTable& table = run.table->layers()[layer];
    const int64_t work = table.candidates * (hidden + kSelectWork);
    pool.parallel_for(run.rows, grain_for(work), [&](int64_t begin, int64_t end) {
      const int64_t first = run.row0 + begin;
      kernels.matmul(x + first * hidden, end - begin, hidden, table.gate, 0, table.candidates,
                     logits.data() + first * candidates, candidates);
      for (int64_t row = first; row < run.row0 + end; ++row) choose(layer, row);
    });
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (chosen[static_cast<size_t>(row)] >= 0) continue;
    poison(row, Status(Code::kUnavailable,
                       fmt::format("layer {}: the gate gave a non-finite score", layer)));
  }
}

void MoeRouter::Impl::choose(size_t layer, int64_t row) {
  const RoutedSegment& segment = segment_of(row);
  int32_t& count = chosen[static_cast<size_t>(row)];
  count = 0;
  if (segment.poisoned) return;
  const RoutingTable& table = *segment.view->table;
  const LayerTable& part = table.layers()[layer];
  const std::vector<uint8_t>& active = segment.view->active[layer];
  const std::span<float> row_logits(logits.data() + row * candidates,
                                    static_cast<size_t>(part.candidates));
  for (size_t c = 0; c < row_logits.size(); ++c) {
    if (active[c] == 0) {
      row_logits[c] = -std::numeric_limits<float>::infinity();
      continue;
    }
    row_logits[c] = row_logits[c] + part.bias[c] +
                    segment.view->request_bias[static_cast<size_t>(part.owner[c])];
    // A true -infinity must not pass for a masked expert.
    if (!std::isfinite(row_logits[c])) {
      count = -1;
      return;
    }
  }
  count = select_experts(table.gate_kind(), row_logits, table.top_k(), table.norm_topk_prob(),
                         {choices_of(row), static_cast<size_t>(stride)},
                         &entropy[static_cast<size_t>(row)]);
}

void MoeRouter::Impl::account(size_t layer) {
  int64_t row0 = 0;
  for (RoutedSegment& segment : segments) {
    account_segment(segment.view->table->layers()[layer], segment, row0, layer);
    row0 += segment.rows;
  }
  if (stats == nullptr) return;
  for (const Run& run : runs) account_run(layer, run);
}

void MoeRouter::Impl::account_segment(const LayerTable& table, RoutedSegment& segment, int64_t row0,
                                      size_t layer) {
  if (segment.poisoned) return;
  const auto& modules = segment.view->table->modules();
  mass.assign(modules.size(), 0.0);
  for (int64_t row = row0; row < row0 + segment.rows; ++row) {
    const int32_t n = chosen[static_cast<size_t>(row)];
    for (int32_t j = 0; j < n; ++j) {
      const GateChoice& c = choices_of(row)[j];
      mass[static_cast<size_t>(table.owner[static_cast<size_t>(c.expert)])] +=
          static_cast<double>(c.mass);
      if (segment.trace == nullptr) continue;
      RoutingTrace& trace = *segment.trace;
      const int64_t at =
          (static_cast<int64_t>(layer) * trace.rows + segment.trace_row + (row - row0)) * trace.k +
          j;
      trace.ids[static_cast<size_t>(at)] = table.slot[static_cast<size_t>(c.expert)];
      trace.weights[static_cast<size_t>(at)] = c.weight;
    }
  }
  if (segment.usage == nullptr) return;
  for (size_t m = 0; m < modules.size(); ++m) {
    if (mass[m] > 0.0) segment.usage->add(modules[m]->name(), mass[m]);
  }
}

void MoeRouter::Impl::account_run(size_t layer, const Run& run) {
  const LayerTable& table = run.table->layers()[layer];
  const auto& modules = run.table->modules();
  RouterStats::Layer& total = stats->layers[layer];
  mass.assign(modules.size(), 0.0);
  counts.assign(static_cast<size_t>(table.candidates), 0);
  for (int64_t row = run.row0; row < run.row0 + run.rows; ++row) {
    const int32_t n = chosen[static_cast<size_t>(row)];
    if (n <= 0 || segment_of(row).poisoned) continue;
    for (int32_t j = 0; j < n; ++j) {
      const GateChoice& c = choices_of(row)[j];
      const auto candidate = static_cast<size_t>(c.expert);
      mass[static_cast<size_t>(table.owner[candidate])] += static_cast<double>(c.mass);
      ++counts[candidate];
    }
    total.entropy_sum += static_cast<double>(entropy[static_cast<size_t>(row)]);
    ++total.tokens;
  }
  // The candidates of one owner stand together, in the order of its experts.
  for (size_t begin = 0; begin < counts.size();) {
    size_t end = begin + 1;
    while (end < counts.size() && table.owner[end] == table.owner[begin]) ++end;
    const auto owner = static_cast<size_t>(table.owner[begin]);
    total.add_module(modules[owner]->name(), {counts.data() + begin, end - begin}, mass[owner]);
    begin = end;
  }
}

void MoeRouter::Impl::group_rows(size_t layer) {
  groups.clear();
  for (const Run& run : runs) {
    const LayerTable& table = run.table->layers()[layer];
    group_of.assign(static_cast<size_t>(table.candidates), -1);
    for (int64_t row = run.row0; row < run.row0 + run.rows; ++row) {
      for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
        const auto candidate = static_cast<size_t>(choices_of(row)[j].expert);
        int32_t& group = group_of[candidate];
        if (group < 0) {
          const Expert* expert = table.experts[candidate].get();
          const auto known = std::find_if(groups.begin(), groups.end(),
                                          [&](const Group& g) { return g.expert == expert; });
          group = static_cast<int32_t>(known - groups.begin());
          if (known == groups.end()) groups.push_back({expert, 0, 0});
        }
        ++groups[static_cast<size_t>(group)].count;
        choice_group[static_cast<size_t>(row * stride + j)] = group;
      }
    }
  }
  int64_t entries = 0;
  for (Group& group : groups) {
    group.begin = entries;
    entries += group.count;
    group.count = 0;  // counted again below
  }
  entry_row.resize(static_cast<size_t>(entries));
  for (int64_t row = 0; row < rows; ++row) {
    for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
      const auto at = static_cast<size_t>(row * stride + j);
      Group& group = groups[static_cast<size_t>(choice_group[at])];
      place[at] = group.begin + group.count++;
      entry_row[static_cast<size_t>(place[at])] = row;
    }
  }
}

void MoeRouter::Impl::run_experts(size_t layer, const float* x) {
  const int64_t hidden = config.hidden_size;
  outputs.resize(std::max(outputs.size(), entry_row.size() * static_cast<size_t>(hidden)));
  ExpertContext context{kernels, pool, scratch};
  for (const Group& group : groups) {
    const int64_t* members = entry_row.data() + group.begin;
    const float* input = x + members[0] * hidden;
    // Rows that lie together already (always so for a single one) need no copy.
    if (members[group.count - 1] - members[0] != group.count - 1) {
      gathered.resize(std::max(gathered.size(), static_cast<size_t>(group.count * hidden)));
      for (int64_t i = 0; i < group.count; ++i) {
        std::memcpy(gathered.data() + i * hidden, x + members[i] * hidden,
                    static_cast<size_t>(hidden) * sizeof(float));
      }
      input = gathered.data();
    }
    const Status status =
        group.expert->forward(input, group.count, outputs.data() + group.begin * hidden, context);
    if (!status.ok()) {
      fail_group(layer, group, status);
    } else if (group.expert->on_failure() == FailurePolicy::kDrop) {
      drop_bad_rows(layer, group);
    }
  }
}

void MoeRouter::Impl::combine(size_t layer, float* y) {
  const int64_t hidden = config.hidden_size;
  pool.parallel_for(rows, grain_for(hidden * (stride + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* out = y + row * hidden;
      std::fill_n(out, hidden, 0.0f);
      bad_row[static_cast<size_t>(row)] = 0;
      if (segment_of(row).poisoned) continue;
      // Descending weight: an order fixed by the choices, not by how they were grouped.
      for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
        const int64_t entry = place[static_cast<size_t>(row * stride + j)];
        kernels.axpy(choices_of(row)[j].weight, outputs.data() + entry * hidden, out, hidden);
      }
      bad_row[static_cast<size_t>(row)] = all_finite(out, hidden) ? 0 : 1;
    }
  });
  bool any = false;
  for (int64_t row = 0; row < rows; ++row) {
    if (bad_row[static_cast<size_t>(row)] == 0) continue;
    fail_row(layer, row);
    any = true;
  }
  if (!any) return;
  for (int64_t row = 0; row < rows; ++row) {
    if (segment_of(row).poisoned) std::fill_n(y + row * hidden, hidden, 0.0f);
  }
}

std::string MoeRouter::Impl::expert_label(int64_t row, size_t layer, int32_t c) {
  const LayerTable& table = table_of(row, layer);
  const auto candidate = static_cast<size_t>(c);
  const auto owner = static_cast<size_t>(table.owner[candidate]);
  return fmt::format("module {}, layer {}, expert {}",
                     segment_of(row).view->table->modules()[owner]->name(), layer,
                     table.index[candidate]);
}

/// A row that an expert with the policy `drop` spoilt goes on without it.
void MoeRouter::Impl::drop_bad_rows(size_t layer, const Group& group) {
  const int64_t hidden = config.hidden_size;
  for (int64_t entry = group.begin; entry < group.begin + group.count; ++entry) {
    if (all_finite(outputs.data() + entry * hidden, hidden)) continue;
    drop_entry(layer, entry, {Code::kUnavailable, "gave a non-finite value"});
  }
}

/// Takes the choice behind an entry out of its row; with nothing left the row fails.
void MoeRouter::Impl::drop_entry(size_t layer, int64_t entry, const Status& why) {
  const int64_t row = entry_row[static_cast<size_t>(entry)];
  RoutedSegment& segment = segment_of(row);
  if (segment.poisoned) return;
  int32_t& count = chosen[static_cast<size_t>(row)];
  const auto first = static_cast<size_t>(row * stride);
  for (int32_t j = 0; j < count; ++j) {
    if (place[first + static_cast<size_t>(j)] != entry) continue;
    const std::string label = expert_label(row, layer, choices_of(row)[j].expert);
    const auto n = static_cast<size_t>(count);
    const auto which = static_cast<size_t>(j);
    count = drop_choice({choices_of(row), n}, which);
    std::copy_n(place.begin() + static_cast<ptrdiff_t>(first + which + 1), n - which - 1,
                place.begin() + static_cast<ptrdiff_t>(first + which));
    ++segment.dropped;
    if (count == 0) {
      poison(row, Status(why.code(), label + ": " + why.message() + ", and no other expert is left",
                         why.hint()));
    }
    return;
  }
}

void MoeRouter::Impl::fail_group(size_t layer, const Group& group, const Status& why) {
  if (group.expert->on_failure() == FailurePolicy::kDrop) {
    for (int64_t i = 0; i < group.count; ++i) drop_entry(layer, group.begin + i, why);
    return;
  }
  for (int64_t i = 0; i < group.count; ++i) {
    const int64_t row = entry_row[static_cast<size_t>(group.begin + i)];
    if (segment_of(row).poisoned) continue;
    const LayerTable& table = table_of(row, layer);
    for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
      const int32_t c = choices_of(row)[j].expert;
      if (table.experts[static_cast<size_t>(c)].get() != group.expert) continue;
      poison(row, why.with_context(expert_label(row, layer, c)));
      break;
    }
  }
}

void MoeRouter::Impl::fail_row(size_t layer, int64_t row) {
  if (segment_of(row).poisoned) return;
  const int64_t hidden = config.hidden_size;
  for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
    const int64_t entry = place[static_cast<size_t>(row * stride + j)];
    if (all_finite(outputs.data() + entry * hidden, hidden)) continue;
    poison(row,
           Status(Code::kUnavailable,
                  expert_label(row, layer, choices_of(row)[j].expert) + ": gave a non-finite value",
                  "Unload the module, or exclude it with modules.exclude."));
    return;
  }
  poison(row, Status(Code::kUnavailable,
                     fmt::format("layer {}: the sum of the experts is not finite", layer)));
}

void MoeRouter::Impl::poison(int64_t row, Status why) {
  RoutedSegment& segment = segment_of(row);
  if (segment.poisoned) return;
  segment.poisoned = true;
  segment.failure = std::move(why);
}

MoeRouter::MoeRouter(const ModelConfig& config, const Kernels& kernels, ThreadPool& pool)
    : impl_(std::make_unique<Impl>(config, kernels, pool)) {}

MoeRouter::~MoeRouter() = default;

void MoeRouter::begin_pass(std::span<RoutedSegment> segments, RouterStats* stats) {
  impl_->begin(segments, stats);
}

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
  impl_->combine(at, y);
  return {};
}

}  // namespace chimera
