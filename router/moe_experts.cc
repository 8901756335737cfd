// MoeRouter: the outputs of a layer's experts summed, failures blamed.
#include <fmt/format.h>

#include <bit>
#include <utility>

#include "base/steady_time.h"
#include "router/drop.h"
#include "router/moe_impl.h"

namespace chimera {
namespace {

bool all_finite(const float* values, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

bool passed(uint64_t deadline_ns) { return deadline_ns != 0 && steady_now_ns() >= deadline_ns; }

}  // namespace

/// In the order of the groups, which the choices alone decide.
void MoeRouter::Impl::settle(size_t layer) {
  for (const Group& group : groups) {
    const Status& status = calls[group.call].status;
    if (!status.ok()) {
      fail_group(layer, group, status);
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
