// Usage accounting: the share of every module, expert counts per layer, entropy of the gate.
//
// Thread safety: values; the engine thread writes them, others read copies.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace chimera {

/// Gate mass of one sequence by module name; share = mass / total. Engine thread only.
struct SequenceUsage {
  std::map<std::string, double> mass;    // includes "backbone"
  std::map<std::string, uint64_t> rows;  // given to its experts: by token, layer and expert
  double total = 0.0;
  /// Adds gate mass (one token adds 1 per layer over all modules) and the rows that go with it.
  void add(const std::string& module, double amount, uint64_t given = 0);
  uint64_t rows_of(const std::string& module) const {
    const auto it = rows.find(module);
    return it == rows.end() ? 0 : it->second;
  }
  /// Fraction of the gate mass that went to `module`, 0 to 1.
  double share(const std::string& module) const {
    const auto it = mass.find(module);
    return it == mass.end() || total <= 0.0 ? 0.0 : it->second / total;
  }
};

/// A forward pass of the engine.
struct PassMark {
  uint64_t number = 0;  // counted from 1 since the start
  int64_t unix_ms = 0;  // when it began
};

/// Totals for `routing` and `stats`. The engine thread counts into one of its own inside a pass and
/// moves that into the one that readers see.
struct RouterStats {
  struct Layer {
    std::map<std::string, std::vector<uint64_t>> expert_tokens;  // module -> tokens per expert
    std::map<std::string, double> mass;                          // module -> gate mass
    double entropy_sum = 0.0;                                    // nats
    uint64_t tokens = 0;
    /// Adds what one pass sent to one module. `tokens_per_expert`: [experts of the module].
    void add_module(const std::string& module, std::span<const uint64_t> tokens_per_expert,
                    double amount);
    void move_into(Layer& total);
  };
  std::vector<Layer> layers;
  PassMark pass;                              // under way; set by whoever runs it
  std::map<std::string, PassMark> last_pass;  // module -> the last that used it

  /// Adds all counts to `total` and sets them to zero. Allocates only for what `total` has not
  /// seen.
  void move_into(RouterStats& total);
  void forget_module(const std::string& module);
};

}  // namespace chimera
