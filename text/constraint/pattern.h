// Regular expressions as trees, read from the syntax that ECMAScript, PCRE2 and Python share and
// that describes regular languages: see docs/constraints.md for the list. What is beyond it (back
// references, looking around, word boundaries, properties of Unicode, flags) is refused by name.
//
// Thread safety: values and free functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/constraint/code_points.h"

namespace chimera::constraint {

struct PatternNode {
  enum class Kind : uint8_t {
    kEmpty,
    kSet,       // one character of `set`
    kSequence,  // parts one after the other
    kEither,    // one of the parts
    kRepeat,    // the one part, `least` to `most` times; kUnbounded: as often as one likes
  } kind = Kind::kEmpty;
  CodePoints set = {};
  std::vector<PatternNode> parts = {};
  int least = 0, most = 0;
};

inline constexpr int kUnbounded = -1;
/// Most of a count {m,n}, and bytes of an expression.
inline constexpr int kMaxRepeat = 1000;
inline constexpr size_t kMaxPatternBytes = 16 * 1024;

/// One alternative of the outermost level, and whether it is bound to the ends of the text.
struct PatternBranch {
  PatternNode tree;
  bool at_start = false, at_end = false;
};

/// invalid_argument says what is wrong at which byte, or what is not supported.
Result<std::vector<PatternBranch>> parse_pattern(std::string_view pattern);

/// How the characters of a text stand in the answer.
enum class Spelling : uint8_t {
  kPlain,
  kJson,  // as in a JSON string: quotes, backslashes and control characters are escaped
};

/// Puts patterns into a network. Sets of characters become rules, one for each.
class PatternWriter {
 public:
  PatternWriter(NetworkBuilder& builder, Spelling spelling)
      : builder_(builder), spelling_(spelling) {}

  NodeId write(const PatternNode& tree, NodeId next);
  /// The whole text is one of the branches; `next` follows.
  NodeId write_whole(const std::vector<PatternBranch>& branches, NodeId next);
  /// One of the branches is found in the text; `next` follows the text.
  NodeId write_search(const std::vector<PatternBranch>& branches, NodeId next);

 private:
  NodeId set(const CodePoints& set, NodeId next);
  NodeId characters(const CodePoints& set, NodeId next);
  NodeId repeat(const PatternNode& tree, NodeId next);
  NodeId anything(NodeId next);

  NetworkBuilder& builder_;
  const Spelling spelling_;
  std::vector<std::pair<std::vector<CodePointRange>, RuleId>> rules_;
};

}  // namespace chimera::constraint
