// A set of the modules of one routing table, by their indexes there: which ones a request may use,
// a client has rights to, a prefix was computed with. Index 0 is the backbone.
//
// Thread safety: a value.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace chimera {

class ModuleMask {
 public:
  ModuleMask() = default;
  ModuleMask(std::initializer_list<size_t> members) {
    for (const size_t member : members) add(member);
  }
  /// 0 to n - 1.
  static ModuleMask first(size_t n) {
    ModuleMask mask;
    mask.words_.assign((n + kBits - 1) / kBits, ~uint64_t{0});
    if (n % kBits != 0) mask.words_.back() >>= kBits - n % kBits;
    return mask;
  }

  bool has(size_t member) const {
    const size_t word = member / kBits;
    return word < words_.size() && (words_[word] >> member % kBits & 1) != 0;
  }
  bool empty() const { return words_.empty(); }
  size_t size() const {
    size_t n = 0;
    for (const uint64_t word : words_) n += static_cast<size_t>(std::popcount(word));
    return n;
  }

  ModuleMask& add(size_t member) {
    const size_t word = member / kBits;
    if (words_.size() <= word) words_.resize(word + 1, 0);
    words_[word] |= uint64_t{1} << member % kBits;
    return *this;
  }
  ModuleMask& remove(size_t member) {
    const size_t word = member / kBits;
    if (word < words_.size()) words_[word] &= ~(uint64_t{1} << member % kBits);
    return trim();
  }
  ModuleMask& operator&=(const ModuleMask& other) {
    words_.resize(std::min(words_.size(), other.words_.size()));
    for (size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
    return trim();
  }
  friend ModuleMask operator&(ModuleMask a, const ModuleMask& b) { return a &= b; }
  bool operator==(const ModuleMask&) const = default;

  /// Calls `use(member)` in ascending order.
  template <class Use>
  void for_each(const Use& use) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t left = words_[i]; left != 0; left &= left - 1) {
        use(i * kBits + static_cast<size_t>(std::countr_zero(left)));
      }
    }
  }

 private:
  static constexpr size_t kBits = 64;
  /// Equal sets have equal words: the last one is not 0.
  ModuleMask& trim() {
    while (!words_.empty() && words_.back() == 0) words_.pop_back();
    return *this;
  }

  std::vector<uint64_t> words_;
};

}  // namespace chimera
