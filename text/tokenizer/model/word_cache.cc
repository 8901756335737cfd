#include "text/tokenizer/model/word_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>

namespace chimera::tokenizer {
namespace {

uint64_t hash_word(std::string_view word, bool variant) {
  const uint64_t h = std::hash<std::string_view>{}(word);
  return variant ? ~h : h;
}

size_t slot_of(uint64_t hash, size_t probe) { return (hash + probe) & (WordCache::kSlots - 1); }

// Never 0, which marks a free slot. From bits that do not choose the slot.
uint8_t tag_of(uint64_t hash) { return static_cast<uint8_t>(hash >> 56 | 1); }

}  // namespace

WordCache::~WordCache() {
  for (const auto& slot : slots_) {
    std::free(const_cast<Entry*>(slot.load(std::memory_order_relaxed)));
  }
}

bool WordCache::find(std::string_view word, bool variant, std::vector<int32_t>& ids) const {
  if (word.size() > kMaxWord) return false;
  const uint64_t hash = hash_word(word, variant);
  for (size_t probe = 0; probe < kProbes; ++probe) {
    const size_t at = slot_of(hash, probe);
    const uint8_t tag = tags_[at].load(std::memory_order_relaxed);
    if (tag == 0) return false;
    if (tag != tag_of(hash)) continue;
    const Entry* entry = slots_[at].load(std::memory_order_acquire);
    if (entry == nullptr || !entry->is(hash, word, variant)) continue;
    const auto found = entry->ids();
    ids.insert(ids.end(), found.begin(), found.end());
    return true;
  }
  return false;
}

// Null when memory is short: the word is merged again then.
const WordCache::Entry* WordCache::make(uint64_t hash, std::string_view word, bool variant,
                                        std::span<const int32_t> ids) {
  void* memory = std::malloc(sizeof(Entry) + ids.size_bytes() + word.size());
  if (memory == nullptr) return nullptr;
  auto* entry = new (memory)
      Entry{hash, static_cast<uint16_t>(ids.size()), static_cast<uint8_t>(word.size()), variant};
  char* tail = reinterpret_cast<char*>(entry + 1);
  if (!ids.empty()) std::memcpy(tail, ids.data(), ids.size_bytes());
  std::copy(word.begin(), word.end(), tail + ids.size_bytes());
  return entry;
}

void WordCache::insert(std::string_view word, bool variant, std::span<const int32_t> ids) const {
  // A character has at most four bytes, each its own token at worst, fused with an unknown one.
  if (word.size() > kMaxWord || ids.size() > 2 * kMaxWord) return;
  const uint64_t hash = hash_word(word, variant);
  const Entry* fresh = nullptr;
  for (size_t probe = 0; probe < kProbes; ++probe) {
    const size_t at = slot_of(hash, probe);
    const Entry* taken = slots_[at].load(std::memory_order_acquire);
    if (taken == nullptr) {
      if (fresh == nullptr) fresh = make(hash, word, variant, ids);
      if (fresh == nullptr) return;
      if (slots_[at].compare_exchange_strong(taken, fresh, std::memory_order_acq_rel)) {
        tags_[at].store(tag_of(hash), std::memory_order_relaxed);
        return;
      }
    }
    if (taken->is(hash, word, variant)) break;
  }
  std::free(const_cast<Entry*>(fresh));
}

}  // namespace chimera::tokenizer
