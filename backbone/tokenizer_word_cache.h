// WordCache: ids of words that were encoded before. Text repeats its words, and looking one up is
// some ten times faster than merging it again.
//
// Thread safety: find() and insert() are lock-free and may run concurrently. A slot is written
// once (null -> entry) and entries live as long as the cache, so a reader can never see one
// freed. Nothing is evicted: when the slots of a word are taken it is merged each time, which
// bounds the memory and costs only speed. Results are pure functions of the word, so the cache
// never changes what is returned.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::tokenizer {

class WordCache {
 public:
  // 2^16 slots hold the common words of several languages; with entries of about 100 bytes a
  // full cache stays below 8 MiB.
  static constexpr size_t kSlots = size_t{1} << 16;
  static constexpr size_t kProbes = 4;
  static constexpr size_t kMaxWord = 48;  // bytes; longer words hardly repeat

  WordCache() : slots_(kSlots) {}
  WordCache(const WordCache&) = delete;
  WordCache& operator=(const WordCache&) = delete;
  ~WordCache();

  /// Appends the ids of `word` and returns true, or returns false. `variant` separates results
  /// for different encode options.
  bool find(std::string_view word, bool variant, std::vector<int32_t>& ids) const;
  void insert(std::string_view word, bool variant, std::span<const int32_t> ids) const;

 private:
  struct Entry {
    uint64_t hash;
    bool variant;
    std::string word;
    std::vector<int32_t> ids;
  };
  mutable std::vector<std::atomic<const Entry*>> slots_;  // [kSlots]
};

}  // namespace chimera::tokenizer
