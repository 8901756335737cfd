// State of one MoeRouter, shared by the files that implement it: moe.cc (passes, gate),
// moe_usage.cc (accounting), moe_calls.cc (grouping, handing over to the executors) and
// moe_experts.cc (summing, blaming).
//
// Thread safety: by the pool's owner; bodies of its loops write disjoint rows.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "experts/adapted_expert.h"
#include "experts/executor.h"
#include "router/gating.h"
#include "router/moe.h"

namespace chimera {

// Work per hand-over to the pool, in multiply-adds: about 3 us on one core, several times what
// waking a spinning worker costs.
inline constexpr int64_t kMoeGrainWork = 1 << 16;

inline int64_t moe_grain(int64_t work_per_row) {
  return std::max<int64_t>(1, kMoeGrainWork / std::max<int64_t>(1, work_per_row));
}

struct MoeRouter::Impl {
  /// Segments next to one another with the same candidates.
  struct Run {
    const ActiveSet* active = nullptr;
    int64_t row0 = 0;
    int64_t rows = 0;
  };

  /// All rows of the batch that chose one expert.
  struct Group {
    Group(const Expert* e, int32_t base) : expert(e), base_expert(base) {}
    const Expert* expert;
    int32_t base_expert;  // number among the checkpoint's own; -1: a module's
    int64_t begin = 0;    // of its rows in the entry order
    int64_t count = 0;
    uint64_t deadline_ns = 0;         // the latest of its rows'; 0: a row has none
    const Expert* current = nullptr;  // expert->current(), of this layer and pass
    size_t first_change = 0;          // of its call
    size_t batch = 0;                 // that its call is in
    size_t call = 0;
  };

  /// Calls [first, first + count) of a layer, by the order of their groups.
  struct Batch {
    explicit Batch(ExpertExecutor& e) : executor(&e) {}
    ExpertExecutor* executor;
    size_t first = 0;
    size_t count = 0;
    std::unique_ptr<RunningCalls> running;
  };

  /// SoftmaxSums of a row that several threads add to.
  struct RowSums {
    float max = 0.0f;
    std::atomic<uint64_t> exponentials{0}, surprise{0};
  };

  Impl(const ModelConfig& c, const Kernels& k, ThreadPool& p)
      : config(c), kernels(k), pool(p), row_sums(static_cast<size_t>(p.threads())) {}

  void note_adapters(const RoutedSegment& segment);
  void add_adapter_rows(const RoutedSegment& segment) const;
  void begin(std::span<RoutedSegment> given, RouterStats* pass_stats);
  void gate(size_t layer, const float* x);
  void gate_by_candidates(size_t layer, const Run& run, const float* x);
  bool sum_candidates(size_t layer, const Run& run);
  /// `sums`: of a row whose logits have their biases already.
  void choose(size_t layer, int64_t row);
  void choose_biased(size_t layer, int64_t row, const SoftmaxSums* sums);
  void account(size_t layer);
  void keep_choices(size_t layer, const RoutedSegment& segment, int64_t row0);
  void count(size_t segment);
  void mark_use(size_t layer, int64_t row);
  void account_segment(const LayerTable& table, RoutedSegment& segment, int64_t row0, size_t layer);
  void account_last_row(const LayerTable& table, RoutedSegment& segment, int64_t row);
  void account_run(size_t layer, const Run& run);
  void group_rows(size_t layer);
  const float* expert_input(const Group& group, const float* x);
  void collect_changes(size_t layer, const Group& group);
  void make_batches();
  void make_calls(size_t layer);
  template <class Act>
  void each_batch(ExecutorPlace where, Act act);
  void take_inputs(ExecutorPlace where, const float* x);
  void run_experts(size_t layer, const float* x);
  void settle(size_t layer);
  void combine(size_t layer, float* y);
  void fail_group(size_t layer, const Group& group, const Status& why);
  void give_up_rows(const Group& group, const Status& why);
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

  uint64_t pass = 0;  // its number: ExpertContext::pass
  bool takes_time = false;
  std::span<RoutedSegment> segments;
  RouterStats* stats = nullptr;
  std::vector<Run> runs;
  std::vector<int32_t> segment_index;  // [rows]
  int64_t rows = 0;
  int64_t stride = 0;      // choices kept per row: the largest top_k of the pass
  int64_t candidates = 0;  // logits kept per row: the most active ones of a layer of the pass

  FloatBuffer logits;               // [rows, candidates]
  std::vector<RowSums> row_sums;    // [threads], of fewer rows than that
  std::vector<GateChoice> choices;  // [rows, stride]
  std::vector<int32_t> chosen;      // [rows] number of choices; -1: not to be used
  std::vector<float> entropy;       // [rows]
  // Of provisional segments: what account() would have read, in every layer that ran.
  struct Place {
    int64_t row = 0;   // first of a segment
    int64_t kept = 0;  // the same among the provisional rows
  };
  std::vector<Place> places;  // [segments]
  int64_t provisional_rows = 0;
  std::vector<size_t> kept_layers;
  std::vector<GateChoice> kept_choices;  // [kept_layers, provisional_rows, stride]
  std::vector<int32_t> kept_chosen;      // [kept_layers, provisional_rows]
  std::vector<float> kept_entropy;       // likewise
  // Scratch that is clean between uses, so that what nobody chose costs nothing.
  std::vector<double> mass;       // [modules] 0
  std::vector<uint64_t> counts;   // [candidates] or [modules] 0
  std::vector<int32_t> group_of;  // [candidates] -1
  std::vector<size_t> used;       // what of these is to be cleaned
  std::vector<Group> groups;
  std::vector<int32_t> choice_group;  // [rows, stride]
  std::vector<int64_t> place;         // [rows, stride] entry of every choice
  std::vector<int64_t> entry_row;     // [entries]
  std::vector<float> entry_weight;    // [entries]
  std::vector<uint64_t> entry_epoch;  // [entries] of the row's table
  FloatBuffer gathered;               // [entries, hidden]
  bool has_adapters = false;          // a segment of the pass has some
  std::vector<RowChange> changes;     // of all calls
  std::vector<ExpertCall> calls;      // [groups] by batch
  std::vector<Batch> batches;
  FloatBuffer outputs;           // [entries, hidden]
  FloatBuffer scratch;           // lent to the experts
  std::vector<uint8_t> bad_row;  // [rows]
};

}  // namespace chimera
