#include <algorithm>
#include <map>

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

bool ends_with(const Characters& text, const Characters& end) {
  return text.size() >= end.size() && std::equal(end.rbegin(), end.rend(), text.rbegin());
}

/// What matters of a text for whether a mark may still be found: the longest end of it that begins
/// one (Aho and Corasick 1975).
class Automaton {
 public:
  explicit Automaton(const std::vector<std::string>& marks) {
    for (const std::string& mark : marks) marks_.push_back(characters_of(mark));
    for (const Characters& mark : marks_) {
      for (size_t size = 0; size < mark.size(); ++size) {
        states_.emplace(Characters(mark.begin(), mark.begin() + static_cast<ptrdiff_t>(size)), 0);
        alphabet_.add(mark[size], mark[size]);
      }
    }
  }

  NodeId write(NetworkBuilder& builder, NodeId next) {
    if (marks_.empty()) states_.emplace(Characters(), 0);
    for (auto& [begun, head] : states_) head = builder.open_loop();
    const NodeId root = states_.begin()->second;  // nothing is begun
    const NodeId others = one_of(builder, alphabet_.complement(), root);
    for (const auto& [begun, head] : states_) {
      std::map<NodeId, CodePoints> by_target;
      for (const CodePointRange& range : alphabet_.ranges()) {
        for (uint32_t c = range.first; c <= range.last; ++c) {
          if (const NodeId* target = behind(begun, c)) by_target[*target].add(c, c);
        }
      }
      NodeId body = others;
      for (const auto& [target, set] : by_target) {
        body = builder.either(one_of(builder, set, target), body);
      }
      builder.close_loop(head, body, next);
    }
    return root;
  }

 private:
  /// Null where a mark would be complete.
  const NodeId* behind(Characters text, uint32_t c) const {
    text.push_back(c);
    for (const Characters& mark : marks_) {
      if (ends_with(text, mark)) return nullptr;
    }
    while (true) {
      const auto found = states_.find(text);
      if (found != states_.end()) return &found->second;
      text.erase(text.begin());
    }
  }

  std::vector<Characters> marks_;
  std::map<Characters, NodeId> states_;  // by what is begun; the empty one comes first
  CodePoints alphabet_;
};

}  // namespace

NodeId words_without(NetworkBuilder& builder, const std::vector<std::string>& marks, NodeId next) {
  if (next == builder.fail()) return builder.fail();
  return Automaton(marks).write(builder, next);
}

}  // namespace chimera::constraint
