#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "text/constraint/code_points.h"
#include "text/constraint/parts.h"

namespace chimera::constraint {
namespace {

using Characters = std::vector<uint32_t>;

Characters characters_of(std::string_view text) {
  Characters out;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    out.push_back(c.code_point);
    i += c.length;
  }
  return out;
}

/// What matters of a text for whether a mark may still be found: the longest end of it that begins
/// one (Aho and Corasick 1975).
class Automaton {
 public:
  explicit Automaton(const std::vector<std::string>& marks) {
    for (const std::string& mark : marks) {
      size_t at = 0;
      for (const uint32_t c : characters_of(mark)) {
        alphabet_.add(c, c);
        const auto [found, fresh] = states_[at].next.emplace(c, states_.size());
        at = found->second;
        if (fresh) states_.emplace_back();
      }
      states_[at].complete = true;
    }
    link();
  }

  NodeId write(NetworkBuilder& builder, NodeId next) {
    for (State& state : states_) {
      if (!state.complete) state.head = builder.open_loop();
    }
    const NodeId root = states_[0].head;
    const NodeId others = one_of(builder, alphabet_.complement(), root);
    for (size_t at = 0; at < states_.size(); ++at) {
      if (states_[at].complete) continue;
      std::map<NodeId, CodePoints> by_target;
      for (const CodePointRange& range : alphabet_.ranges()) {
        for (uint32_t c = range.first; c <= range.last; ++c) {
          const State& target = states_[after(at, c)];
          if (!target.complete) by_target[target.head].add(c, c);
        }
      }
      NodeId body = others;
      for (const auto& [target, set] : by_target) {
        body = builder.either(one_of(builder, set, target), body);
      }
      builder.close_loop(states_[at].head, body, next);
    }
    return root;
  }

 private:
  /// A beginning of marks; the first is the empty one.
  struct State {
    std::map<uint32_t, size_t> next;
    size_t shorter = 0;     // the longest proper end of it that is a beginning, too
    bool complete = false;  // it ends with a mark
    NodeId head = 0;
  };

  /// Shorter ones first, since each needs those of its own ends.
  void link() {
    std::deque<size_t> order = {0};
    for (; !order.empty(); order.pop_front()) {
      const size_t at = order.front();
      for (const auto& [c, longer] : states_[at].next) {
        State& state = states_[longer];
        state.shorter = at == 0 ? 0 : after(states_[at].shorter, c);
        state.complete = state.complete || states_[state.shorter].complete;
        order.push_back(longer);
      }
    }
  }

  size_t after(size_t at, uint32_t c) const {
    while (true) {
      const auto found = states_[at].next.find(c);
      if (found != states_[at].next.end()) return found->second;
      if (at == 0) return 0;
      at = states_[at].shorter;
    }
  }

  std::vector<State> states_ = std::vector<State>(1);
  CodePoints alphabet_;
};

}  // namespace

NodeId words_without(NetworkBuilder& builder, const std::vector<std::string>& marks, NodeId next) {
  if (next == builder.fail()) return builder.fail();
  return Automaton(marks).write(builder, next);
}

}  // namespace chimera::constraint
