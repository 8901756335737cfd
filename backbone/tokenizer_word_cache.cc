#include "backbone/tokenizer_word_cache.h"

#include <functional>
#include <memory>

namespace chimera::tokenizer {
namespace {

uint64_t hash_word(std::string_view word, bool variant) {
  const uint64_t h = std::hash<std::string_view>{}(word);
  return variant ? ~h : h;
}

size_t slot_of(uint64_t hash, size_t probe) { return (hash + probe) & (WordCache::kSlots - 1); }

}  // namespace

WordCache::~WordCache() {
  for (const auto& slot : slots_) delete slot.load(std::memory_order_relaxed);
}

bool WordCache::find(std::string_view word, bool variant, std::vector<int32_t>& ids) const {
  if (word.size() > kMaxWord) return false;
  const uint64_t hash = hash_word(word, variant);
  for (size_t probe = 0; probe < kProbes; ++probe) {
    const Entry* entry = slots_[slot_of(hash, probe)].load(std::memory_order_acquire);
    if (entry == nullptr) return false;
    if (entry->hash == hash && entry->variant == variant && entry->word == word) {
      ids.insert(ids.end(), entry->ids.begin(), entry->ids.end());
      return true;
    }
  }
  return false;
}

void WordCache::insert(std::string_view word, bool variant, std::span<const int32_t> ids) const {
  if (word.size() > kMaxWord) return;
  const uint64_t hash = hash_word(word, variant);
  std::unique_ptr<Entry> entry;
  for (size_t probe = 0; probe < kProbes; ++probe) {
    auto& slot = slots_[slot_of(hash, probe)];
    const Entry* expected = slot.load(std::memory_order_acquire);
    if (expected != nullptr) {
      if (expected->hash == hash && expected->variant == variant && expected->word == word) return;
      continue;
    }
    if (!entry) {
      entry.reset(new Entry{hash, variant, std::string(word), {ids.begin(), ids.end()}});
    }
    if (slot.compare_exchange_strong(expected, entry.get(), std::memory_order_acq_rel)) {
      entry.release();
      return;
    }
  }
}

}  // namespace chimera::tokenizer
