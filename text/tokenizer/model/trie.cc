#include "text/tokenizer/model/trie.h"

#include <algorithm>

namespace chimera::tokenizer {

void PrefixTrie::build(std::vector<std::pair<std::string_view, int32_t>> tokens) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // tokens[begin, end) share the `depth` bytes that lead to `node`. Breadth first, so that the
  // children of a node are created together.
  struct Range {
    uint32_t node;
    size_t begin, end, depth;
  };
  nodes_ = {Node{}};
  labels_ = {0};
  std::vector<Range> queue = {{0, 0, tokens.size(), 0}};
  for (size_t next = 0; next < queue.size(); ++next) {
    const Range range = queue[next];
    size_t begin = range.begin;
    for (; begin < range.end && tokens[begin].first.size() == range.depth; ++begin) {
      if (range.depth > 0) nodes_[range.node].value = tokens[begin].second;
    }
    nodes_[range.node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < range.end) {
      const auto byte = static_cast<uint8_t>(tokens[begin].first[range.depth]);
      size_t end = begin;
      while (end < range.end && static_cast<uint8_t>(tokens[end].first[range.depth]) == byte) ++end;
      queue.push_back({static_cast<uint32_t>(nodes_.size()), begin, end, range.depth + 1});
      nodes_.emplace_back();
      labels_.push_back(byte);
      ++nodes_[range.node].children;
      begin = end;
    }
  }
}

uint32_t PrefixTrie::child(uint32_t node, uint8_t byte) const {
  const Node& parent = nodes_[node];
  const auto first = labels_.begin() + parent.first_child;
  const auto last = first + parent.children;
  const auto found = std::lower_bound(first, last, byte);
  if (found == last || *found != byte) return 0;
  return static_cast<uint32_t>(found - labels_.begin());
}

}  // namespace chimera::tokenizer
