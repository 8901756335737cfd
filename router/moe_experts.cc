// MoeRouter: rows grouped by expert, experts run, outputs summed, failures blamed.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

#include "base/steady_time.h"
#include "router/drop.h"
#include "router/moe_impl.h"

namespace chimera {
namespace {

// Experts run together while their scratch memory stays within a cache (4 MiB). With more rows than
// that each has work enough for all threads, and their scratch memory would add up for nothing.
constexpr int64_t kTogetherFloats = 1 << 20;

bool all_finite(const float* values, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

/// Of two deadlines the later; 0: none, which is later than any.
uint64_t later(uint64_t a, uint64_t b) { return a == 0 || b == 0 ? 0 : std::max(a, b); }

bool passed(uint64_t deadline_ns) { return deadline_ns != 0 && steady_now_ns() >= deadline_ns; }

}  // namespace

void MoeRouter::Impl::group_rows(size_t layer) {
  groups.clear();
  for (const Run& run : runs) {
    const LayerTable& table = run.active->layout->layers()[layer];
    const auto candidates_here = static_cast<size_t>(table.candidates);
    if (group_of.size() < candidates_here) group_of.resize(candidates_here, -1);
    used.clear();
    for (int64_t row = run.row0; row < run.row0 + run.rows; ++row) {
      for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
        const auto candidate = static_cast<size_t>(choices_of(row)[j].expert);
        int32_t& group = group_of[candidate];
        if (group < 0) {
          used.push_back(candidate);
          const Expert* expert = table.experts[candidate].get();
          const auto known = std::find_if(groups.begin(), groups.end(),
                                          [&](const Group& g) { return g.expert == expert; });
          group = static_cast<int32_t>(known - groups.begin());
          if (known == groups.end())
            groups.push_back(
                Group{expert, table.owner[candidate] == 0 ? table.index[candidate] : -1});
        }
        ++groups[static_cast<size_t>(group)].count;
        choice_group[static_cast<size_t>(row * stride + j)] = group;
      }
    }
    for (const size_t candidate : used) group_of[candidate] = -1;
  }
  int64_t entries = 0;
  for (Group& group : groups) {
    group.begin = entries;
    entries += group.count;
    group.count = 0;  // counted again below
  }
  entry_row.resize(static_cast<size_t>(entries));
  entry_weight.resize(static_cast<size_t>(entries));
  entry_epoch.resize(static_cast<size_t>(entries));
  for (int64_t row = 0; row < rows; ++row) {
    const RoutedSegment& segment = segment_of(row);
    for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
      const auto at = static_cast<size_t>(row * stride + j);
      Group& group = groups[static_cast<size_t>(choice_group[at])];
      group.deadline_ns =
          group.count == 0 ? segment.deadline_ns : later(group.deadline_ns, segment.deadline_ns);
      place[at] = group.begin + group.count++;
      entry_row[static_cast<size_t>(place[at])] = row;
      entry_weight[static_cast<size_t>(place[at])] = choices_of(row)[j].weight;
      entry_epoch[static_cast<size_t>(place[at])] = segment.view->table->epoch();
    }
  }
}

/// The rows of a group, [count, hidden]: in place when they lie together already (always so for a
/// single one) and go in as they are, else copied, and scaled where the family says so.
const float* MoeRouter::Impl::expert_input(const Group& group, const float* x) {
  const int64_t hidden = config.hidden_size;
  const int64_t* members = entry_row.data() + group.begin;
  const bool together = members[group.count - 1] - members[0] == group.count - 1;
  if (together && !config.score_scales_input) return x + members[0] * hidden;
  float* const rows_of_group = gathered.data() + group.begin * hidden;
  for (int64_t i = 0; i < group.count; ++i) {
    const float* from = x + members[i] * hidden;
    float* to = rows_of_group + i * hidden;
    std::memcpy(to, from, static_cast<size_t>(hidden) * sizeof(float));
    if (!config.score_scales_input) continue;
    const float weight = entry_weight[static_cast<size_t>(group.begin + i)];
    for (int64_t h = 0; h < hidden; ++h) to[h] *= weight;
  }
  return rows_of_group;
}

ExpertContext MoeRouter::Impl::context_of(const Group& group) {
  ExpertContext context{kernels, pool, scratch};
  context.deadline_ns = group.deadline_ns;
  context.pass = pass;
  context.row_epochs = entry_epoch.data() + group.begin;
  return context;
}

void MoeRouter::Impl::run_group(Group& group, const float* x) {
  if (passed(group.deadline_ns)) {
    group.status = {Code::kDeadlineExceeded, "not begun: the deadlines of all its rows had passed"};
    return;
  }
  ExpertContext context = context_of(group);
  group.status = group.expert->forward(expert_input(group, x), group.count,
                                       outputs.data() + group.begin * config.hidden_size, context);
}

/// The group's expert as run_staged takes it, with what adapters change of it for their rows; null
/// when it cannot run together with others.
const StagedExpert* MoeRouter::Impl::staged_of(size_t layer, const Group& group) {
  const StagedExpert* staged = group.expert->staged();
  const bool adaptable = has_adapters && group.base_expert >= 0 && staged != nullptr &&
                         staged->feed_forward() != nullptr;
  if (!adaptable) return staged;
  AdaptedExpert& expert = adapted.emplace_back(*staged->feed_forward());
  const auto segment_at = [&](int64_t i) {
    return segment_index[static_cast<size_t>(entry_row[static_cast<size_t>(group.begin + i)])];
  };
  for (int64_t i = 0; i < group.count;) {
    const auto& adapters = segments[static_cast<size_t>(segment_at(i))].view->adapters;
    const int64_t first = i;
    for (; i < group.count; ++i) {
      if (segments[static_cast<size_t>(segment_at(i))].view->adapters != adapters) break;
    }
    for (const Adapter* adapter : adapters) {
      const ExpertChange* change = adapter->change_of(layer, group.base_expert);
      if (change != nullptr) expert.add(*change, first, i - first);
    }
  }
  return expert.empty() ? staged : &expert;
}

/// All that can run together, as many at a time as share kTogetherFloats of scratch memory.
void MoeRouter::Impl::run_staged_groups(size_t layer, const float* x) {
  ExpertContext context{kernels, pool, scratch};  // they compute to the end
  int64_t floats = 0;
  const auto flush = [&] {
    run_staged(calls, context);
    calls.clear();
    floats = 0;
  };
  calls.clear();
  adapted.clear();
  for (const Group& group : groups) {
    const StagedExpert* expert = staged_of(layer, group);
    if (expert == nullptr) continue;
    const int64_t need = expert->scratch_floats(group.count);
    if (!calls.empty() && floats + need > kTogetherFloats) flush();
    floats += need;
    calls.push_back({expert, expert_input(group, x), group.count,
                     outputs.data() + group.begin * config.hidden_size});
  }
  if (!calls.empty()) flush();
}

/// Experts in processes of their own compute while those of this process do.
void MoeRouter::Impl::run_experts(size_t layer, const float* x) {
  const int64_t hidden = config.hidden_size;
  const size_t floats = entry_row.size() * static_cast<size_t>(hidden);
  outputs.resize(std::max(outputs.size(), floats));
  gathered.resize(std::max(gathered.size(), floats));
  for (Group& group : groups) {
    if (!group.expert->runs_elsewhere() || passed(group.deadline_ns)) continue;
    ExpertContext context = context_of(group);
    group.running = group.expert->begin(expert_input(group, x), group.count,
                                        outputs.data() + group.begin * hidden, context);
    group.begun = group.running != nullptr;
  }
  run_staged_groups(layer, x);
  for (Group& group : groups) {
    if (group.expert->staged() == nullptr && !group.expert->runs_elsewhere()) run_group(group, x);
  }
  for (Group& group : groups) {
    if (group.begun) group.status = std::exchange(group.running, nullptr)->finish();
  }
  for (Group& group : groups) {
    if (group.expert->runs_elsewhere() && !group.begun) run_group(group, x);
  }
}

/// In the order of the groups, which the choices alone decide.
void MoeRouter::Impl::settle(size_t layer) {
  for (const Group& group : groups) {
    if (!group.status.ok()) {
      fail_group(layer, group, group.status);
    } else if (group.expert->on_failure() == FailurePolicy::kDrop) {
      drop_bad_rows(layer, group);
    }
  }
}

void MoeRouter::Impl::combine(size_t layer, float* y) {
  const int64_t hidden = config.hidden_size;
  pool.parallel_for(rows, moe_grain(hidden * (stride + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* out = y + row * hidden;
      std::fill_n(out, hidden, 0.0f);
      bad_row[static_cast<size_t>(row)] = 0;
      if (segment_of(row).poisoned) continue;
      // Descending weight: an order fixed by the choices, not by how they were grouped.
      for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
        const int64_t entry = place[static_cast<size_t>(row * stride + j)];
        const float weight = config.score_scales_input ? 1.0f : choices_of(row)[j].weight;
        kernels.axpy(weight, outputs.data() + entry * hidden, out, hidden);
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

/// Nobody waits for these rows any more, which is not the expert's failure.
void MoeRouter::Impl::give_up_rows(const Group& group, const Status& why) {
  for (int64_t entry = group.begin; entry < group.begin + group.count; ++entry) {
    const int64_t row = entry_row[static_cast<size_t>(entry)];
    if (!segment_of(row).poisoned) segment_of(row).late = true;
    poison(row, why);
  }
}

void MoeRouter::Impl::fail_group(size_t layer, const Group& group, const Status& why) {
  if (why.code() == Code::kDeadlineExceeded && passed(group.deadline_ns)) {
    return give_up_rows(group, why);
  }
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
      if (!segment_of(row).poisoned) segment_of(row).lost_call = true;
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

}  // namespace chimera
