#include "backbone/forward/kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/io/digest.h"

namespace chimera {

struct KvCache::Impl {
  /// One per block. A block is cold_, warm_, in use (refs > 0) or cached and unused (in lru_).
  struct Block {
    int32_t refs = 0;
    bool in_lru = false;
    std::string key;  // of the prefix index; empty when not published
    std::list<BlockId>::iterator lru_at;
  };

  KvCacheOptions options;
  int64_t key_bytes = 0;    // of one layer of one block
  int64_t layer_bytes = 0;  // keys and values of one layer of one block
  int64_t block_bytes = 0;
  bool values_in_keys = false;
  std::byte* memory = nullptr;  // [blocks][layers]{[block_tokens][key], [block_tokens][value]}
  uint64_t bytes = 0;
  std::vector<Block> blocks;
  std::vector<BlockId> cold_;
  std::vector<BlockId> warm_;  // back: given back last
  size_t least_warm_ = 0;      // fewest there were since the last trim()
  std::list<BlockId> lru_;     // front: unused for longest
  std::unordered_map<std::string, BlockId> index_;

  ~Impl() {
    if (memory != nullptr) munmap(memory, bytes);
  }
  Block& at(BlockId id) { return blocks[static_cast<size_t>(id)]; }

  void leave_lru(Block& block) {
    lru_.erase(block.lru_at);
    block.in_lru = false;
  }
  void unpublish(Block& block) {
    index_.erase(block.key);
    block.key.clear();
  }
  BlockId take_back(std::vector<BlockId>& from) {
    const BlockId id = from.back();
    from.pop_back();
    return id;
  }
  BlockId evict() {
    const BlockId id = lru_.front();
    Block& evicted = at(id);
    leave_lru(evicted);
    unpublish(evicted);
    return id;
  }
  /// Blocks [first, first + n): the whole pages among their bytes.
  void release_memory(BlockId first, int64_t n) const {
    static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto base = reinterpret_cast<uintptr_t>(memory + first * block_bytes);
    const uintptr_t begin = (base + page - 1) / page * page;
    const uintptr_t end = (base + static_cast<uint64_t>(n * block_bytes)) / page * page;
    // Best effort: where the system refuses, the memory stays and is used again.
    if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
};

KvCache::KvCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvCache::~KvCache() = default;

Result<std::unique_ptr<KvCache>> KvCache::create(const ModelConfig& config,
                                                 KvCacheOptions options) {
  if (options.block_tokens < 1 || options.block_tokens > 4096)
    return Status(Code::kInvalidArgument, "KV cache: block_tokens is " +
                                              std::to_string(options.block_tokens) +
                                              ", expected 1 to 4096");
  if (options.blocks < 1 || options.blocks > std::numeric_limits<BlockId>::max())
    return Status(Code::kInvalidArgument, "KV cache: " + std::to_string(options.blocks) +
                                              " blocks, expected 1 to 2147483647");
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  const int64_t number = kv_number_bytes(options.format);
  impl->key_bytes = config.key_width() * options.block_tokens * number;
  impl->layer_bytes = impl->key_bytes + config.value_width() * options.block_tokens * number;
  impl->block_bytes = impl->layer_bytes * config.num_layers;
  impl->values_in_keys = config.value_width() == 0;
  // Sizes of a checked ModelConfig keep one block far below 2^62 bytes; the pool may not.
  const auto block_bytes = static_cast<uint64_t>(impl->block_bytes);
  if (__builtin_mul_overflow(block_bytes, static_cast<uint64_t>(options.blocks), &impl->bytes) ||
      impl->bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return Status(Code::kResourceExhausted,
                  "KV cache: " + std::to_string(options.blocks) + " blocks of " +
                      std::to_string(block_bytes) + " bytes exceed the address space",
                  "lower max_sequences or max_context");
  void* memory = mmap(nullptr, impl->bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return Status(Code::kResourceExhausted,
                  "KV cache: cannot reserve " + std::to_string(impl->bytes) +
                      " bytes: " + std::strerror(errno),
                  "lower max_sequences or max_context");
  impl->memory = static_cast<std::byte*>(memory);
  impl->blocks.resize(static_cast<size_t>(options.blocks));
  impl->cold_.reserve(static_cast<size_t>(options.blocks));
  impl->warm_.reserve(static_cast<size_t>(options.blocks));
  // Handed out from the back: the lowest ids first, so that neighbours share pages.
  for (int64_t id = options.blocks; id-- > 0;) impl->cold_.push_back(static_cast<BlockId>(id));
  return std::unique_ptr<KvCache>(new KvCache(std::move(impl)));
}

int64_t KvCache::block_tokens() const { return impl_->options.block_tokens; }
KvFormat KvCache::format() const { return impl_->options.format; }
int64_t KvCache::total_blocks() const { return impl_->options.blocks; }
int64_t KvCache::available_blocks() const {
  return static_cast<int64_t>(impl_->cold_.size() + impl_->warm_.size() + impl_->lru_.size());
}
int64_t KvCache::cached_blocks() const { return static_cast<int64_t>(impl_->lru_.size()); }
int64_t KvCache::resident_blocks() const {
  return total_blocks() - static_cast<int64_t>(impl_->cold_.size());
}
uint64_t KvCache::block_bytes(const ModelConfig& config, int64_t block_tokens, KvFormat format) {
  return static_cast<uint64_t>(config.key_width() + config.value_width()) *
         static_cast<uint64_t>(block_tokens) * static_cast<uint64_t>(config.num_layers) *
         static_cast<uint64_t>(kv_number_bytes(format));
}
uint64_t KvCache::block_bytes() const { return static_cast<uint64_t>(impl_->block_bytes); }
uint64_t KvCache::reserved_bytes() const { return impl_->bytes; }

Result<KvCache::BlockId> KvCache::allocate() {
  Impl& impl = *impl_;
  BlockId id = -1;
  if (!impl.warm_.empty()) {
    id = impl.take_back(impl.warm_);
    impl.least_warm_ = std::min(impl.least_warm_, impl.warm_.size());
  } else if (cached_blocks() > impl.options.keep_cached) {
    id = impl.evict();
  } else if (!impl.cold_.empty()) {
    id = impl.take_back(impl.cold_);
  } else if (!impl.lru_.empty()) {
    id = impl.evict();
  } else {
    return Status(Code::kResourceExhausted,
                  "KV cache: all " + std::to_string(total_blocks()) + " blocks of " +
                      std::to_string(block_tokens()) + " tokens are in use",
                  "wait for a sequence to finish, or raise max_sequences or max_context");
  }
  impl.at(id).refs = 1;
  return id;
}

int64_t KvCache::trim() {
  Impl& impl = *impl_;
  // The bottom of the stack: nobody has come down to these since the last call.
  const auto end = impl.warm_.begin() + static_cast<ptrdiff_t>(impl.least_warm_);
  std::vector<BlockId> unused(impl.warm_.begin(), end);
  impl.warm_.erase(impl.warm_.begin(), end);
  impl.least_warm_ = impl.warm_.size();
  std::sort(unused.begin(), unused.end());
  for (size_t i = 0; i < unused.size();) {
    size_t next = i + 1;
    while (next < unused.size() && unused[next] == unused[next - 1] + 1) ++next;
    impl.release_memory(unused[i], static_cast<int64_t>(next - i));
    i = next;
  }
  impl.cold_.insert(impl.cold_.end(), unused.rbegin(), unused.rend());
  return static_cast<int64_t>(unused.size());
}

void KvCache::add_ref(BlockId id) {
  Impl::Block& block = impl_->at(id);
  if (block.in_lru) impl_->leave_lru(block);
  ++block.refs;
}

void KvCache::release(BlockId id) {
  Impl::Block& block = impl_->at(id);
  if (--block.refs > 0) return;
  if (block.key.empty()) {
    impl_->warm_.push_back(id);
    return;
  }
  block.lru_at = impl_->lru_.insert(impl_->lru_.end(), id);
  block.in_lru = true;
}

std::byte* KvCache::keys(BlockId block, int64_t layer) {
  return impl_->memory + block * impl_->block_bytes + layer * impl_->layer_bytes;
}

std::byte* KvCache::values(BlockId block, int64_t layer) {
  return keys(block, layer) + (impl_->values_in_keys ? 0 : impl_->key_bytes);
}

std::string KvCache::chain_key(std::string_view parent, const int32_t* tokens, int64_t n) {
  Sha256 hash;
  hash.update_field(parent);
  hash.update_u64(static_cast<uint64_t>(n));
  hash.update(std::as_bytes(std::span(tokens, static_cast<size_t>(n))));
  return hash.finish();
}

KvCache::BlockId KvCache::lookup(const std::string& key) {
  const auto it = impl_->index_.find(key);
  if (it == impl_->index_.end()) return -1;
  add_ref(it->second);
  return it->second;
}

void KvCache::publish(BlockId id, const std::string& key) {
  Impl::Block& block = impl_->at(id);
  if (!impl_->options.prefix_cache || key.empty() || !block.key.empty()) return;
  if (!impl_->index_.emplace(key, id).second) return;
  block.key = key;
}

void KvCache::forget_all() {
  for (Impl::Block& block : impl_->blocks) block.key.clear();
  impl_->index_.clear();
  for (BlockId id : impl_->lru_) {
    impl_->at(id).in_lru = false;
    impl_->warm_.push_back(id);
  }
  impl_->lru_.clear();
}

Status KvSequence::reserve(int64_t tokens) {
  const int64_t size = cache_->block_tokens();
  const auto needed = static_cast<size_t>((tokens + size - 1) / size);
  const size_t before = blocks_.size();
  while (blocks_.size() < needed) {
    Result<KvCache::BlockId> block = cache_->allocate();
    if (!block.ok()) {
      for (; blocks_.size() > before; blocks_.pop_back()) cache_->release(blocks_.back());
      return block.status();
    }
    blocks_.push_back(*block);
  }
  return Status();
}

void KvSequence::shrink(int64_t tokens) {
  const int64_t size = cache_->block_tokens();
  const auto needed = static_cast<size_t>((tokens + size - 1) / size);
  for (; blocks_.size() > needed; blocks_.pop_back()) cache_->release(blocks_.back());
}

void KvSequence::clear() {
  // Last block first: of a cached chain the tail is useless without its head, so it goes first.
  for (; !blocks_.empty(); blocks_.pop_back()) cache_->release(blocks_.back());
}

}  // namespace chimera
