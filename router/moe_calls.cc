// MoeRouter: rows grouped by expert, their calls handed over to the executors of a layer.
#include <cstring>
#include <utility>

#include "router/moe_impl.h"

namespace chimera {
namespace {

/// Of two deadlines the later; 0: none, which is later than any.
uint64_t later(uint64_t a, uint64_t b) { return a == 0 || b == 0 ? 0 : std::max(a, b); }

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

/// What adapters change of the group's expert for its rows, by the segments that these are of.
void MoeRouter::Impl::collect_changes(size_t layer, const Group& group) {
  if (!has_adapters || group.base_expert < 0) return;
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
      if (change != nullptr) changes.push_back({change, first, i - first});
    }
  }
}

/// The executors of the layer, in the order in which its groups name them.
void MoeRouter::Impl::make_batches() {
  batches.clear();
  for (Group& group : groups) {
    group.current = &group.expert->current();
    ExpertExecutor& executor = group.current->executor();
    const auto known = std::find_if(batches.begin(), batches.end(),
                                    [&](const Batch& b) { return b.executor == &executor; });
    group.batch = static_cast<size_t>(known - batches.begin());
    if (known == batches.end()) batches.emplace_back(executor);
    ++batches[group.batch].count;
  }
  size_t first = 0;
  for (Batch& batch : batches) {
    batch.first = first;
    first += batch.count;
    batch.count = 0;  // counted again as they are filled
  }
}

void MoeRouter::Impl::make_calls(size_t layer) {
  make_batches();
  changes.clear();
  for (Group& group : groups) {
    group.first_change = changes.size();
    collect_changes(layer, group);
  }
  calls.clear();
  calls.resize(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    Group& group = groups[g];
    Batch& batch = batches[group.batch];
    group.call = batch.first + batch.count++;
    const size_t last_change = g + 1 < groups.size() ? groups[g + 1].first_change : changes.size();
    ExpertCall& call = calls[group.call];
    call.expert = group.current;
    call.rows = group.count;
    call.y = outputs.data() + group.begin * config.hidden_size;
    call.changes = {changes.data() + group.first_change, last_change - group.first_change};
    call.deadline_ns = group.deadline_ns;
    call.row_epochs = entry_epoch.data() + group.begin;
  }
}

template <class Act>
void MoeRouter::Impl::each_batch(ExecutorPlace where, Act act) {
  for (Batch& batch : batches) {
    if (batch.executor->place() == where)
      act(batch, std::span(calls).subspan(batch.first, batch.count));
  }
}

void MoeRouter::Impl::take_inputs(ExecutorPlace where, const float* x) {
  for (const Group& group : groups) {
    if (batches[group.batch].executor->place() == where)
      calls[group.call].x = expert_input(group, x);
  }
}

/// As executor.h has it.
void MoeRouter::Impl::run_experts(size_t layer, const float* x) {
  const size_t floats = entry_row.size() * static_cast<size_t>(config.hidden_size);
  outputs.resize(std::max(outputs.size(), floats));
  gathered.resize(std::max(gathered.size(), floats));
  make_calls(layer);
  ExpertContext context{kernels, pool, scratch};
  context.pass = pass;
  const auto start = [&](Batch& batch, std::span<ExpertCall> its) {
    batch.running = batch.executor->start(its, context);
  };
  const auto run = [&](const Batch& batch, std::span<ExpertCall> its) {
    batch.executor->run(its, context);
  };
  take_inputs(ExecutorPlace::kElsewhere, x);
  each_batch(ExecutorPlace::kElsewhere, start);
  for (const ExecutorPlace here : {ExecutorPlace::kPool, ExecutorPlace::kCaller}) {
    take_inputs(here, x);
    each_batch(here, run);
  }
  for (Batch& batch : batches) {
    if (batch.running != nullptr) std::exchange(batch.running, nullptr)->finish();
  }
  each_batch(ExecutorPlace::kElsewhere, run);
}

}  // namespace chimera
