// The key/value cache: one pool of fixed-size blocks, handed out to sequences by reference count
// so that sequences with a common prefix share the blocks of that prefix.
//
// A block holds `block_tokens` positions of all layers in the cache's format: keys and values, or
// with latent attention the latent alone, from which both are computed. Address space is reserved
// once; memory is taken from the system as blocks are needed for the first time and given back by
// trim().
//
// A block is in one of four places: *cold* (costs no memory), *warm* (its memory is there, its
// contents are not wanted), *cached* (unused, but found by its prefix) or in use. What is there is
// used again before memory grows: warm blocks first, then the cached ones beyond `keep_cached`,
// longest unused first, then cold ones, and when there are none the other cached ones.
//
// Invariants: (1) a block with more than one reference is full and never written again;
// (2) blocks in the prefix index hold exactly the hidden history named by their key, which chains
// composition digest, mask and all tokens up to the block's end (design invariant 7).
//
// Thread safety: engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backbone/families/model_config.h"
#include "backbone/forward/kv_format.h"
#include "base/status.h"

namespace chimera {

struct KvCacheOptions {
  int64_t block_tokens = 16;  // 16: small enough that short chats waste little, large enough that
                              // attention walks contiguous keys
  int64_t blocks = 0;         // pool size: the most that is ever held
  bool prefix_cache = true;
  int64_t keep_cached = 0;  // unused cached blocks that memory may grow beside
  KvFormat format = KvFormat::kF32;
};

class KvCache {
 public:
  using BlockId = int32_t;

  static Result<std::unique_ptr<KvCache>> create(const ModelConfig& config, KvCacheOptions options);
  ~KvCache();

  int64_t block_tokens() const;
  KvFormat format() const;
  int64_t total_blocks() const;
  /// Blocks that allocate() could hand out now: free ones plus unreferenced cached ones.
  int64_t available_blocks() const;
  /// Unreferenced blocks that a prefix still finds.
  int64_t cached_blocks() const;
  /// Blocks whose memory is there: in use, cached or warm.
  int64_t resident_blocks() const;
  /// Bytes of one block of `block_tokens` positions of a model.
  static uint64_t block_bytes(const ModelConfig& config, int64_t block_tokens, KvFormat format);
  uint64_t block_bytes() const;
  uint64_t reserved_bytes() const;

  /// A block with one reference, evicting the least recently used cached block if needed;
  /// resource_exhausted when every block is referenced.
  Result<BlockId> allocate();
  /// Gives the memory of warm blocks back to the system that were not needed since the call before:
  /// so a cache in use keeps what it goes through, and one that nobody uses ends with the cached
  /// blocks alone. Returns how many there were.
  int64_t trim();
  void add_ref(BlockId block);
  void release(BlockId block);

  /// [block_tokens, ModelConfig::key_width()] numbers of format(): by kv head, or one latent.
  std::byte* keys(BlockId block, int64_t layer);
  /// [block_tokens, ModelConfig::value_width()]; the keys where that is 0 (latent attention).
  std::byte* values(BlockId block, int64_t layer);

  // --- prefix index -----------------------------------------------------------------------
  /// Chain key of a block: sha256 over parent key (root: `scope`) and its tokens. `scope` is
  /// "composition digest | mask | bias".
  static std::string chain_key(std::string_view parent, const int32_t* tokens, int64_t n);
  /// A cached full block under `key` with one reference added, or -1.
  BlockId lookup(const std::string& key);
  /// Makes a full block of the caller's findable; no-op when prefix caching is off, the key is
  /// known, or the block has a key already.
  void publish(BlockId block, const std::string& key);
  /// Empties the index: no later lookup finds a block published before. Blocks in use stay valid.
  void forget_all();

 private:
  struct Impl;
  explicit KvCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The blocks of one sequence, in position order. Releases them on destruction.
class KvSequence {
 public:
  explicit KvSequence(KvCache* cache) : cache_(cache) {}
  ~KvSequence() { clear(); }
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  /// Grows to hold `tokens` positions; on failure nothing changes.
  Status reserve(int64_t tokens);
  /// Gives back the blocks that `tokens` positions do not need.
  void shrink(int64_t tokens);
  /// Appends an already referenced block (prefix hit). REQUIRES: all earlier blocks are full.
  void adopt(KvCache::BlockId block) { blocks_.push_back(block); }
  void clear();
  const std::vector<KvCache::BlockId>& blocks() const { return blocks_; }
  KvCache& cache() const { return *cache_; }

 private:
  KvCache* cache_;
  std::vector<KvCache::BlockId> blocks_;
};

}  // namespace chimera
