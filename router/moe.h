// The router at work: gate, group rows by expert, run the experts, sum in fixed order.
//
// Rows of sequences on different tables that chose the same expert object are one batch for that
// expert. A row's result depends on its own choices alone: not on the batch it came in, nor on the
// order in which experts ran. Thread safety: one MoeRouter per thread that runs passes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backbone/backbone.h"
#include "router/routing_table.h"
#include "router/usage.h"

namespace chimera {

/// How the rows of one segment are routed. Fixed for the life of a sequence on one table.
struct RouteView {
  std::shared_ptr<const RoutingTable> table;
  std::shared_ptr<const ActiveSet> active;  // of the table's layout
  std::vector<float> request_bias;  // per module of the table, added to its logits; or empty
  int64_t top_k = 0;                // table->top_k(mask())
  std::string scope;                // table->scope(mask(), request_bias)
  /// Whether the adapters of `active` are here. Where one of them was not in memory, none is, and
  /// no pass may use the view: with_adapters() gives one that passes may use.
  bool has_adapters = true;
  // Of the modules of active->adapters, in their order.
  std::vector<std::shared_ptr<const Adapter>> held = {};
  std::vector<const Adapter*> adapters = {};
  std::vector<const BackboneAdapter*> backbone_adapters = {};

  const ModuleMask& mask() const { return active->mask; }
};
/// `request_bias` may be empty. Modules that are not in the table do not count. No pass may use the
/// view before its ActiveSet is ready.
Result<std::shared_ptr<const RouteView>> make_route_view(std::shared_ptr<const RoutingTable> table,
                                                         const ModuleMask& mask,
                                                         std::vector<float> request_bias);
/// `view` with its adapters, in the order of active->adapters; or with none, so that it has to get
/// them.
std::shared_ptr<const RouteView> with_adapters(
    const RouteView& view, std::vector<std::shared_ptr<const Adapter>> adapters);
std::shared_ptr<const RouteView> without_adapters(const RouteView& view);
/// The view on `table` that gives the same outputs as `view`, made without a look at its modules;
/// null where they cannot be told to be the same.
std::shared_ptr<const RouteView> same_view(const RouteView& view,
                                           const std::shared_ptr<const RoutingTable>& table);

/// Experts of one row in one layer by its gate scores. `logits`: [active candidates of the layer],
/// what the gate rows gave; the biases of table and request are added to them. Writes to `out`
/// candidates of the layer by descending weight and returns their number; -1 when a score is not
/// finite. `entropy` as select_experts'.
int32_t choose_experts(const RouteView& view, size_t layer, std::span<float> logits,
                       std::span<GateChoice> out, float* entropy);

/// The two halves of choose_experts(). The first adds to the logits of active candidates `first`
/// on; the second takes all of them, with their sums where these are known.
void add_biases(const RouteView& view, size_t layer, size_t first, std::span<float> logits);
int32_t choose_biased(const RouteView& view, size_t layer, std::span<const float> logits,
                      std::span<GateChoice> out, float* entropy, const SoftmaxSums* sums);

/// Top-k ids and weights of every row and layer, kept when a request asks for "routing".
struct RoutingTrace {
  int64_t k = 0;               // set by the router: largest top_k seen
  std::vector<int32_t> ids;    // [layers, rows, k] slots by descending weight, -1 where fewer
                               // than k remained and in layers without a router
  std::vector<float> weights;  // same shape, 0 beside -1; what multiplies the expert's output, or
                               // its input where ModelConfig::score_scales_input
  int64_t rows = 0;            // grows to trace_row + rows of every segment that names the trace

  /// Makes room for `rows` rows of `k` choices in each of `layers` layers, keeping what is there.
  void reserve(int64_t layers, int64_t rows, int64_t k);
};

struct RoutedSegment {
  const RouteView* view = nullptr;
  int64_t rows = 0;                   // as many as the BatchSegment has tokens
  SequenceUsage* usage = nullptr;     // may be null
  SequenceUsage* last_row = nullptr;  // out: the usage of its last row alone; may be null
  RoutingTrace* trace = nullptr;      // may be null; grown as needed
  int64_t trace_row = 0;              // first row of this segment inside the trace
  uint64_t deadline_ns = 0;           // of its request, as steady_ns; 0: none
  bool provisional = false;  // its rows may turn out not to count: until MoeRouter::count() they
                             // are in no usage, no last_row and no statistics but last_pass
  bool poisoned = false;   // out: a non-finite value, or a failed expert, in one of its rows; from
                           // that layer on its FFN output is 0 and its results must be discarded
  bool lost_call = false;  // out: poisoned by a forward that failed, not by what it computed
  bool late = false;       // out: poisoned because an expert was given up on for its deadline
  Status failure;          // out: which expert of which module, when poisoned
  uint64_t dropped = 0;    // out: choices of its rows done without, as their expert failed and its
                           // policy is to drop it; what was computed is not what the scope says
};

class MoeRouter final : public FeedForward {
 public:
  MoeRouter(const ModelConfig& config, const Kernels& kernels, ThreadPool& pool);
  ~MoeRouter() override;
  /// Sets the segments of the next pass, in batch order; they and `stats` (may be null) must stay
  /// alive until it ends and the last count(). Clears their outputs.
  void begin_pass(std::span<RoutedSegment> segments, RouterStats* stats);
  /// From now on passes give every call the time that the expert may take, not only what a step
  /// waits (ExpertContext::pass): for passes that hold nobody up.
  void take_time();
  /// Counts a provisional segment of the pass that ended: from now on everything is as if it had
  /// stood in a pass of its own behind the others. `segment`: its index in begin_pass. Once at
  /// most.
  void count(size_t segment);
  /// One layer of the pass. A call is given up on when the deadlines of all its rows have passed,
  /// and for no other reason of time but the expert's own limit. An expert that fails, or gives a
  /// value that is not finite, is dropped from the rows that chose it where its policy says so
  /// (drop.h); else it poisons the segments that chose it. Nobody else is affected. The call itself
  /// fails only on misuse (internal). Does not allocate once its buffers have grown to the largest
  /// batch seen, but for what adapters change of experts.
  Status forward(int64_t layer, const float* x, int64_t rows, float* y) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
