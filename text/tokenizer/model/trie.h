// PrefixTrie: every token that begins at some place of a text, shortest first.
//
// Children of a node are neighbours in one array, in byte order, so a step is a search among at
// most 256 bytes and the whole trie is three flat arrays.
//
// Thread safety: immutable after build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::tokenizer {

class PrefixTrie {
 public:
  /// Builds from (token, value) pairs; values are not negative, empty tokens are left out, and of
  /// equal tokens the last counts. The strings are needed during the call only.
  void build(std::vector<std::pair<std::string_view, int32_t>> tokens);

  /// Calls visit(length, value) for every token that `text` begins with, by growing length.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const;

 private:
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;  // up to 256
    int32_t value = -1;     // of the token that ends here
  };
  // The child of `node` for `byte`; 0, the root, when there is none.
  uint32_t child(uint32_t node, uint8_t byte) const;

  std::vector<Node> nodes_ = {Node{}};  // [0] is the root
  std::vector<uint8_t> labels_ = {0};   // byte that leads to each node
};

template <class Visit>
void PrefixTrie::for_each_prefix(std::string_view text, Visit&& visit) const {
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    node = child(node, static_cast<uint8_t>(text[i]));
    if (node == 0) return;
    if (nodes_[node].value >= 0) visit(i + 1, nodes_[node].value);
  }
}

}  // namespace chimera::tokenizer
