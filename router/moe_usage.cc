// Usage accounting of MoeRouter: shares of a sequence, totals of the router, routing traces.
#include <algorithm>
#include <span>
#include <utility>

#include "router/moe_impl.h"

namespace chimera {
namespace {

/// Of `n` at least, all clean as before.
template <class T>
void reach(std::vector<T>& scratch, size_t n) {
  if (scratch.size() < n) scratch.resize(n);
}

}  // namespace

void MoeRouter::Impl::account(size_t layer) {
  if (provisional_rows > 0) kept_layers.push_back(layer);
  int64_t row0 = 0;
  for (RoutedSegment& segment : segments) {
    if (segment.provisional)
      keep_choices(layer, segment, row0);
    else if (!segment.poisoned)
      account_segment(segment.view->table->layers()[layer], segment, row0, layer);
    row0 += segment.rows;
  }
  if (stats == nullptr) return;
  for (const Run& run : runs) account_run(layer, run);
}

void MoeRouter::Impl::keep_choices(size_t layer, const RoutedSegment& segment, int64_t row0) {
  for (int64_t row = row0; row < row0 + segment.rows; ++row) {
    kept_choices.insert(kept_choices.end(), choices_of(row), choices_of(row) + stride);
    kept_chosen.push_back(segment.poisoned ? 0 : chosen[static_cast<size_t>(row)]);
    kept_entropy.push_back(entropy[static_cast<size_t>(row)]);
    if (stats != nullptr && !segment.poisoned) mark_use(layer, row);
  }
}

/// A row that may not count has used its modules all the same.
void MoeRouter::Impl::mark_use(size_t layer, int64_t row) {
  const LayerTable& table = table_of(row, layer);
  const auto& modules = segment_of(row).view->table->modules();
  for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
    const auto candidate = static_cast<size_t>(choices_of(row)[j].expert);
    const auto owner = static_cast<size_t>(table.owner[candidate]);
    stats->last_pass[modules[owner]->name()] = stats->pass;
  }
}

/// Adapters are given no rows at a gate, and change every row of those that name them.
void MoeRouter::Impl::add_adapter_rows(const RoutedSegment& segment) const {
  if (segment.usage == nullptr) return;
  for (const Module* module : segment.view->active->adapters)
    segment.usage->add(module->name(), 0.0, static_cast<uint64_t>(segment.rows));
}

/// Puts the choices of each layer back where they stood, and accounts for them as account() does.
void MoeRouter::Impl::count(size_t index) {
  RoutedSegment& segment = segments[index];
  segment.provisional = false;
  add_adapter_rows(segment);
  if (segment.last_row != nullptr) *segment.last_row = {};
  const bool was_poisoned = std::exchange(segment.poisoned, false);  // so in the layers before it
  const int64_t row0 = places[index].row;
  const int64_t n = segment.rows;
  for (size_t l = 0; l < kept_layers.size(); ++l) {
    const int64_t from = static_cast<int64_t>(l) * provisional_rows + places[index].kept;
    std::copy_n(kept_choices.data() + from * stride, n * stride, choices_of(row0));
    std::copy_n(kept_chosen.data() + from, n, chosen.data() + row0);
    std::copy_n(kept_entropy.data() + from, n, entropy.data() + row0);
    const size_t layer = kept_layers[l];
    account_segment(segment.view->table->layers()[layer], segment, row0, layer);
    if (stats != nullptr) account_run(layer, {segment.view->active.get(), row0, segment.rows});
  }
  segment.poisoned = was_poisoned;
}

void MoeRouter::Impl::account_segment(const LayerTable& table, RoutedSegment& segment, int64_t row0,
                                      size_t layer) {
  const auto& modules = segment.view->table->modules();
  reach(mass, modules.size());
  reach(counts, modules.size());
  used.clear();
  for (int64_t row = row0; row < row0 + segment.rows; ++row) {
    const int32_t n = chosen[static_cast<size_t>(row)];
    for (int32_t j = 0; j < n; ++j) {
      const GateChoice& c = choices_of(row)[j];
      const auto owner = static_cast<size_t>(table.owner[static_cast<size_t>(c.expert)]);
      mass[owner] += static_cast<double>(c.mass);
      if (counts[owner]++ == 0) used.push_back(owner);
      if (segment.trace == nullptr) continue;
      RoutingTrace& trace = *segment.trace;
      const int64_t at =
          (static_cast<int64_t>(layer) * trace.rows + segment.trace_row + (row - row0)) * trace.k +
          j;
      trace.ids[static_cast<size_t>(at)] = table.slot[static_cast<size_t>(c.expert)];
      trace.weights[static_cast<size_t>(at)] = c.weight;
    }
  }
  if (segment.last_row != nullptr) account_last_row(table, segment, row0 + segment.rows - 1);
  std::sort(used.begin(), used.end());
  for (const size_t m : used) {
    if (segment.usage != nullptr) segment.usage->add(modules[m]->name(), mass[m], counts[m]);
    mass[m] = 0.0;
    counts[m] = 0;
  }
}

void MoeRouter::Impl::account_last_row(const LayerTable& table, RoutedSegment& segment,
                                       int64_t row) {
  const auto& modules = segment.view->table->modules();
  for (int32_t j = 0; j < chosen[static_cast<size_t>(row)]; ++j) {
    const GateChoice& c = choices_of(row)[j];
    const auto owner = static_cast<size_t>(table.owner[static_cast<size_t>(c.expert)]);
    segment.last_row->add(modules[owner]->name(), static_cast<double>(c.mass));
  }
}

void MoeRouter::Impl::account_run(size_t layer, const Run& run) {
  const LayerTable& table = run.active->layout->layers()[layer];
  const auto& modules = run.active->layout->modules();
  RouterStats::Layer& total = stats->layers[layer];
  reach(mass, modules.size());
  reach(counts, static_cast<size_t>(table.candidates));
  used.clear();
  for (int64_t row = run.row0; row < run.row0 + run.rows; ++row) {
    const int32_t n = chosen[static_cast<size_t>(row)];
    const RoutedSegment& segment = segment_of(row);
    if (n <= 0 || segment.poisoned || segment.provisional) continue;
    for (int32_t j = 0; j < n; ++j) {
      const GateChoice& c = choices_of(row)[j];
      const auto candidate = static_cast<size_t>(c.expert);
      mass[static_cast<size_t>(table.owner[candidate])] += static_cast<double>(c.mass);
      if (counts[candidate]++ == 0) used.push_back(candidate);
    }
    total.entropy_sum += static_cast<double>(entropy[static_cast<size_t>(row)]);
    ++total.tokens;
  }
  std::sort(used.begin(), used.end());
  for (auto next = used.begin(); next != used.end();) {
    // The candidates of one owner stand together, in the order of its experts.
    const int32_t owner = table.owner[*next];
    size_t begin = *next, end = *next + 1;
    while (begin > 0 && table.owner[begin - 1] == owner) --begin;
    while (end < table.owner.size() && table.owner[end] == owner) ++end;
    const std::string& name = modules[static_cast<size_t>(owner)]->name();
    total.add_module(name, {counts.data() + begin, end - begin}, mass[static_cast<size_t>(owner)]);
    stats->last_pass[name] = stats->pass;
    mass[static_cast<size_t>(owner)] = 0.0;
    for (; next != used.end() && *next < end; ++next) counts[*next] = 0;
  }
}

}  // namespace chimera
