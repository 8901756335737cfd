// Network: a language of byte strings as a recursive transition network, that is, a
// nondeterministic automaton per rule whose edges read a byte or go through another rule (Woods
// 1970). Regular expressions are one rule; nested JSON needs rules that call each other.
//
// Made by a NetworkBuilder, from the end of a text to its beginning: every part is given the node
// that follows it and answers the node where it begins.
//
// Thread safety: a Network is immutable; a builder belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace chimera::constraint {

using NodeId = int32_t;
using RuleId = int32_t;

struct NetworkNode {
  enum class Kind : uint8_t {
    kFail,   // nothing follows
    kEnd,    // the rule is complete
    kByte,   // a byte from `first` to `last`, then `next`
    kSplit,  // `next` or `other`
    kCall,   // the rule `other`, then `next`
  } kind = Kind::kFail;
  uint8_t first = 0, last = 0;
  NodeId next = 0;
  int32_t other = 0;
};

/// Rules in each other at most. Beyond 64 levels of brackets nothing that people write follows, and
/// readers of JSON begin to refuse (this project's own at 64).
inline constexpr int kMaxDepth = 64;
/// Nodes of one network. A node takes 16 bytes here, 4 in `height`.
inline constexpr size_t kMaxNodes = 100'000;

struct Network {
  std::vector<NetworkNode> nodes;
  std::vector<NodeId> starts;  // of the rules
  RuleId root = 0;
  /// By node: how many rules deep one must go from there to end its rule; above kMaxDepth when that
  /// cannot be. Whoever only goes to nodes whose height fits below kMaxDepth can always end.
  std::vector<int> height;
};

class NetworkBuilder {
 public:
  NetworkBuilder();

  NodeId fail() const { return 0; }
  NodeId end() const { return 1; }
  NodeId byte(uint8_t first, uint8_t last, NodeId next);
  NodeId text(std::string_view bytes, NodeId next);
  NodeId either(NodeId a, NodeId b);
  NodeId optional(NodeId part, NodeId next) { return either(part, next); }
  NodeId call(RuleId rule, NodeId next);

  /// The head of a loop, to be closed: its body is made with the head as what follows.
  NodeId open_loop();
  void close_loop(NodeId head, NodeId body, NodeId exit);

  /// A rule that may be called before it is defined. `name` is for messages.
  RuleId declare(std::string name);
  void define(RuleId rule, NodeId start);
  RuleId rule(std::string name, NodeId start);

  /// More nodes were asked for than there may be; whoever makes many in a loop asks.
  bool full() const { return full_; }

  /// invalid_argument when it became too large, when a rule leads to itself with nothing in
  /// between, or when no text of bounded depth is in the language. `what` names it.
  Result<Network> finish(RuleId root, std::string_view what) &&;

 private:
  NodeId add(NetworkNode node);
  Status find_left_recursion(std::string_view what) const;
  void find_heights();

  Network network_;
  std::vector<std::string> names_;
  bool full_ = false;
};

}  // namespace chimera::constraint
