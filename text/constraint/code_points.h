// Sets of characters, and their UTF-8 as parts of a network.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <vector>

#include "text/constraint/network.h"

namespace chimera::constraint {

struct CodePointRange {
  uint32_t first = 0, last = 0;
  friend bool operator==(const CodePointRange&, const CodePointRange&) = default;
};

/// A set of Unicode scalar values.
class CodePoints {
 public:
  CodePoints() = default;
  CodePoints(std::initializer_list<CodePointRange> ranges);
  static CodePoints all();

  void add(uint32_t first, uint32_t last);
  void add(const CodePoints& other);
  void remove(uint32_t first, uint32_t last);
  CodePoints complement() const;
  CodePoints without(const CodePoints& other) const;
  bool contains(uint32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  /// Sorted, apart, none of them next to another; without surrogates.
  const std::vector<CodePointRange>& ranges() const { return ranges_; }

 private:
  void normalize();
  std::vector<CodePointRange> ranges_;
};

/// One character of `set`, then `next`.
NodeId one_of(NetworkBuilder& builder, const CodePoints& set, NodeId next);

}  // namespace chimera::constraint
