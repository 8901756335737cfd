// backbone_fingerprint: which backbone a module belongs to, and the cache that keeps a restart
// from hashing gigabytes again.
#include <sodium.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <span>
#include <vector>

#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/model_config.h"
#include "base/io/digest.h"
#include "base/quote.h"
#include "base/threads/thread_pool.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

// Part of every digest and cache name: a change of the definition must not match old results.
constexpr std::string_view kDefinition = "chimera backbone fingerprint 2";
// Bytes hashed as one: pieces keep every core busy whatever the tensors' sizes.
constexpr size_t kPiece = size_t{16} << 20;
using PieceDigest = std::array<unsigned char, crypto_generichash_BYTES>;
constexpr size_t kMaxCacheBytes = 128;
// A file written within this time could be written again without its time stamps moving, which
// come in ticks of the kernel's clock or, on some file systems, of two seconds.
constexpr int64_t kSettledNs = 3'000'000'000;

/// The feed-forward weights of routed experts. is_expert_tensor counts the gates in as well; they
/// belong to the backbone.
bool is_routed_ffn(const ModelConfig& config, std::string_view name) {
  return is_expert_tensor(config, name) && name.find(".experts.") != std::string_view::npos;
}

/// BLAKE2b (RFC 7693) of the pieces of all tensors, in order: twice as fast as SHA-256 on a CPU
/// without instructions for that, and gigabytes go through it.
std::vector<PieceDigest> piece_digests(const std::vector<const TensorView*>& tensors) {
  std::vector<std::span<const std::byte>> pieces;
  for (const TensorView* t : tensors) {
    for (size_t at = 0; at < t->bytes.size(); at += kPiece)
      pieces.push_back(t->bytes.subspan(at, std::min(kPiece, t->bytes.size() - at)));
  }
  std::vector<PieceDigest> digests(pieces.size());
  // Chooses the fastest implementation; a failure leaves the portable one.
  [[maybe_unused]] const int chosen = sodium_init();
  ThreadPool pool(auto_threads());
  pool.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      crypto_generichash(digests[i].data(), digests[i].size(),
                         reinterpret_cast<const unsigned char*>(pieces[i].data()), pieces[i].size(),
                         nullptr, 0);
    }
  });
  return digests;
}

/// The first packed tensor that `counts`; null: none.
template <class Counts>
const TensorView* first_packed(const Checkpoint& checkpoint, const Counts& counts) {
  for (const auto& file : checkpoint.files()) {
    for (const TensorView& t : file->tensors()) {
      if (is_packed_type(t.dtype) && counts(t)) return &t;
    }
  }
  return nullptr;
}

/// What the record of a packed checkpoint says, once its tensors are found to be those that it was
/// written for.
Result<std::string> fingerprint_of_source(const Checkpoint& checkpoint,
                                          const std::string& content) {
  if (checkpoint.packed()) {
    // A record beside numbers would lend any checkpoint the name of any other.
    if (first_packed(checkpoint, [](const TensorView&) { return true; }) == nullptr) {
      return Status(Code::kDataCorrupt,
                    checkpoint.label(kPackedRecordName) +
                        ": found it beside a checkpoint without packed tensors (expected those of "
                        "precision " +
                        checkpoint.packed()->precision.name() + ")",
                    "Remove it: a checkpoint that is not packed goes by a fingerprint of its own.");
    }
    if (checkpoint.packed()->content == content) return checkpoint.packed()->source;
    return Status(Code::kDataCorrupt,
                  checkpoint.label(kPackedRecordName) + ": found tensors of content " + content +
                      " (expected " + checkpoint.packed()->content + ", for which it was written)",
                  "Its files were changed or do not belong together; pack the checkpoint again.");
  }
  const auto config = parse_model_config(checkpoint.config_json(), checkpoint.dir());
  if (!config.ok()) return config.status();
  const TensorView* packed = first_packed(
      checkpoint, [&](const TensorView& t) { return !is_routed_ffn(*config, t.name); });
  if (packed == nullptr) return content;
  return Status(Code::kFailedPrecondition,
                checkpoint.dir() + ": found the packed tensor " + quote(packed->name) + " and no " +
                    kPackedRecordName + " (expected it, which names what it was packed from)",
                "Copy the whole directory, or pack the checkpoint again.");
}

/// A digest of the names, types, shapes and pieces' digests of the backbone's tensors.
Result<std::string> compute(const Checkpoint& checkpoint) {
  const auto config = parse_model_config(checkpoint.config_json(), checkpoint.dir());
  if (!config.ok()) return config.status();
  std::vector<const TensorView*> tensors;
  for (const std::string& name : checkpoint.names()) {
    if (!is_routed_ffn(*config, name)) tensors.push_back(checkpoint.find(name));
  }
  // What is still to be made comes one by one: the memory of one tensor is enough.
  std::vector<const TensorView*> stored;
  for (const TensorView* t : tensors) {
    if (t->source == nullptr) stored.push_back(t);
  }
  const std::vector<PieceDigest> digests = piece_digests(stored);
  auto next = digests.begin();
  Sha256 hash;
  hash.update_field(kDefinition);
  for (const TensorView* t : tensors) {
    hash.update_field(t->name);
    hash.update_field(dtype_name(t->dtype));
    hash.update_u64(t->shape.size());
    for (const int64_t dim : t->shape) hash.update_u64(static_cast<uint64_t>(dim));
    hash.update_u64(t->bytes.size());
    if (is_packed_type(t->dtype)) hash.update(std::as_bytes(std::span(&t->scale, 1)));
    if (t->source != nullptr) {
      const Result<TensorView> made = loaded(*t);
      if (!made.ok()) return made.status().with_context(checkpoint.dir());
      for (const PieceDigest& digest : piece_digests({&*made}))
        hash.update(std::as_bytes(std::span(digest)));
      checkpoint.release(*t);
      continue;
    }
    for (size_t at = 0; at < t->bytes.size(); at += kPiece)
      hash.update(std::as_bytes(std::span(*next++)));
  }
  return hash.finish();
}

/// Path of the cache file for exactly these files in exactly this state; empty when they are too
/// fresh to be told from a later state.
std::string cache_path(const Checkpoint& checkpoint, const std::string& cache_dir) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t now_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  Sha256 hash;
  hash.update_field(kDefinition);
  hash.update_field(checkpoint.config_json());  // says which tensors are experts
  for (const auto& file : checkpoint.files()) {
    const FileIdentity& id = file->identity();
    if (now_ns - std::max(id.modified_ns, id.changed_ns) < kSettledNs) return {};
    for (const uint64_t part : {id.device, id.inode, id.size, static_cast<uint64_t>(id.modified_ns),
                                static_cast<uint64_t>(id.changed_ns)}) {
      hash.update_u64(part);
    }
  }
  constexpr size_t kPrefix = 7;  // "sha256:"
  return cache_dir + "/fingerprint-" + hash.finish().substr(kPrefix);
}

}  // namespace

Result<std::string> backbone_content(const Checkpoint& checkpoint) { return compute(checkpoint); }

Result<std::string> backbone_fingerprint(const Checkpoint& checkpoint,
                                         const std::string& cache_dir) {
  const std::string path = cache_dir.empty() ? "" : cache_path(checkpoint, cache_dir);
  if (!path.empty()) {
    const auto cached = read_file(Env::system(), path, kMaxCacheBytes);
    if (cached.ok() && is_sha256(*cached)) return fingerprint_of_source(checkpoint, *cached);
  }
  const auto content = compute(checkpoint);
  if (!content.ok()) return content;
  if (!path.empty()) {
    // Best effort: without the cache the next start computes it again.
    ::mkdir(cache_dir.c_str(), 0700);
    (void)write_file_durably(Env::system(), path, *content, 0600);
  }
  return fingerprint_of_source(checkpoint, *content);
}

}  // namespace chimera
