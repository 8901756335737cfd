// The pieces of JSON as parts of a network: what every schema is made of.
//
// Only JSON as it is usually written: between tokens nothing, one space, or a line break with up to
// kMaxIndent spaces; escapes where strings need them or \uXXXX; numbers short enough that readers
// get them as they are. So a model that goes astray cannot fill an answer with spaces or digits.
//
// Thread safety: as the builder.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "text/constraint/network.h"

namespace chimera::constraint {

inline constexpr int kMaxIndent = 32;
/// Digits of an integer, so that it fits into 64 bits, and of a fraction.
inline constexpr int kMaxIntegerDigits = 18, kMaxFractionDigits = 17;
/// Characters that maxLength and elements that maxItems may count to.
inline constexpr int64_t kMaxCount = 10'000;
/// Bounds of a number that is no integer: so few digits before and behind the point are exact.
inline constexpr int64_t kMaxRealBound = 1'000'000'000;
inline constexpr int kBoundedFractionDigits = 6;

/// A range of numbers; nothing: without bound there.
struct Bounds {
  std::optional<int64_t> least, most;
  bool least_open = false, most_open = false;  // the bound itself is out
};

class JsonGrammar {
 public:
  explicit JsonGrammar(NetworkBuilder& builder);

  NodeId space(NodeId next);        // after brackets and commas, before closing brackets
  NodeId after_colon(NodeId next);  // at most one space
  NodeId literal(const Json& value, NodeId next);
  NodeId boolean(NodeId next);
  NodeId null(NodeId next) { return builder_.text("null", next); }
  /// A string of `least` to `most` characters (nothing: any number).
  NodeId string(int64_t least, std::optional<int64_t> most, NodeId next);
  NodeId integer(const Bounds& bounds, NodeId next);
  NodeId number(const Bounds& bounds, NodeId next);
  /// A string that is none of `names`, without escapes.
  NodeId other_name(const std::vector<std::string>& names, NodeId next);

  RuleId value() const { return value_; }  // any value
  NodeId any_object(NodeId next);
  NodeId any_array(NodeId next);
  NodeId any_string(NodeId next);
  NodeId any_number(NodeId next);

  /// Writes a part in front of what follows it.
  using Part = std::function<NodeId(NodeId next)>;
  /// `least` to `most` items with commas between them, up to the bracket `close`.
  NodeId list(const Part& item, int64_t least, std::optional<int64_t> most, NodeId close);

 private:
  NodeId digits(int least, int most, NodeId next);
  NodeId interval(const std::string& low, const std::string& high, NodeId next);
  NodeId natural(int64_t low, int64_t high, NodeId next);
  NodeId magnitude(Bounds bounds, NodeId next);
  NodeId fraction(bool above_zero, NodeId next);
  RuleId define_character();

  NetworkBuilder& builder_;
  RuleId space_, character_, string_, number_, integer_, value_;
};

}  // namespace chimera::constraint
