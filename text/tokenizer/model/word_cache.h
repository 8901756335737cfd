// WordCache: ids of words that were encoded before. Text repeats its words, and looking one up is
// some ten times faster than merging it again.
//
// An entry is one block of memory (header, ids, word), and a byte of each word's hash stands in an
// array of its own: a look-up that finds nothing mostly stays within one cache line, one that
// finds something reads two more.
//
// Thread safety: find() and insert() are lock-free and may run concurrently. A slot is written
// once (null -> entry) and entries live as long as the cache, so a reader can never see one
// freed. Nothing is evicted: when the slots of a word are taken it is merged each time, which
// bounds the memory and costs only speed. Results are pure functions of the word, so the cache
// never changes what is returned.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace chimera::tokenizer {

class WordCache {
 public:
  // 2^17 slots hold the common words of several languages; with entries of about 48 bytes a full
  // cache stays below 8 MiB.
  static constexpr size_t kSlots = size_t{1} << 17;
  static constexpr size_t kProbes = 8;
  static constexpr size_t kMaxWord = 48;  // bytes; longer words hardly repeat

  WordCache() : tags_(kSlots), slots_(kSlots) {}
  WordCache(const WordCache&) = delete;
  WordCache& operator=(const WordCache&) = delete;
  ~WordCache();

  /// Appends the ids of `word` and returns true, or returns false. `variant` separates results
  /// for different encode options.
  bool find(std::string_view word, bool variant, std::vector<int32_t>& ids) const;
  void insert(std::string_view word, bool variant, std::span<const int32_t> ids) const;

 private:
  // Followed in memory by the ids and then the bytes of the word.
  struct Entry {
    uint64_t hash;
    uint16_t id_count;
    uint8_t word_size;
    bool variant;

    std::span<const int32_t> ids() const {
      return {reinterpret_cast<const int32_t*>(this + 1), id_count};
    }
    std::string_view word() const {
      return {reinterpret_cast<const char*>(this + 1) + id_count * sizeof(int32_t), word_size};
    }
    bool is(uint64_t other_hash, std::string_view other, bool other_variant) const {
      return hash == other_hash && variant == other_variant && word() == other;
    }
  };
  static const Entry* make(uint64_t hash, std::string_view word, bool variant,
                           std::span<const int32_t> ids);

  // A tag is written after its slot; one that is seen late only makes a look-up miss.
  mutable std::vector<std::atomic<uint8_t>> tags_;        // [kSlots], 0: free
  mutable std::vector<std::atomic<const Entry*>> slots_;  // [kSlots]
};

}  // namespace chimera::tokenizer
