// parent_digest: what a parent is, and the cache that spares hashing it again.
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "experts/assembly/parent.h"

namespace chimera {
namespace {

// Part of every digest: a change of the definition must not match old results.
constexpr std::string_view kDefinition = "chimera parent/1";
constexpr size_t kPrefix = std::string_view("sha256:").size();
constexpr size_t kMaxCacheBytes = 128;
// Memory that a thread has mapped at once: a tensor may be larger than what the run may take.
constexpr size_t kWindowBytes = size_t{4} << 20;

std::string cache_path(const Parent& parent, const std::string& cache_dir) {
  Sha256 hash;
  hash.update_field(kDefinition);
  for (const TensorFile* file : parent.files()) {
    const FileIdentity& id = file->identity();
    for (const uint64_t value :
         {id.device, id.inode, id.size, static_cast<uint64_t>(id.modified_ns),
          static_cast<uint64_t>(id.changed_ns)}) {
      hash.update_u64(value);
    }
  }
  if (!parent.is_module()) hash.update_field(parent.checkpoint().config_json());
  return cache_dir + "/parent-" + hash.finish().substr(kPrefix);
}

std::string digest_of(const Parent& parent, ThreadPool& pool) {
  std::vector<const TensorView*> tensors;
  for (const TensorFile* file : parent.files()) {
    for (const TensorView& tensor : file->tensors()) tensors.push_back(&tensor);
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  std::vector<std::string> digests(tensors.size());
  pool.parallel_for(static_cast<int64_t>(tensors.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      Sha256 hash;
      for (auto left = tensors[at]->bytes; !left.empty();) {
        const auto window = left.first(std::min(left.size(), kWindowBytes));
        hash.update(window);
        release_pages(window);
        left = left.subspan(window.size());
      }
      digests[at] = hash.finish();
    }
  });
  Sha256 hash;
  hash.update_field(kDefinition);
  for (size_t i = 0; i < tensors.size(); ++i) {
    hash.update_field(tensors[i]->name);
    hash.update_field(dtype_name(tensors[i]->dtype));
    for (const int64_t dim : tensors[i]->shape) hash.update_u64(static_cast<uint64_t>(dim));
    hash.update_field(digests[i]);
  }
  if (!parent.is_module()) hash.update_field(parent.checkpoint().config_json());
  return hash.finish();
}

}  // namespace

Result<std::string> parent_digest(const Parent& parent, const std::string& cache_dir,
                                  ThreadPool& pool) {
  const std::string path = cache_dir.empty() ? "" : cache_path(parent, cache_dir);
  if (!path.empty()) {
    const Result<std::string> cached = read_file(Env::system(), path, kMaxCacheBytes);
    if (cached.ok() && is_sha256(*cached)) return *cached;
  }
  std::string digest = digest_of(parent, pool);
  if (!path.empty()) {
    // Best effort: without the cache the next run computes it again.
    ::mkdir(cache_dir.c_str(), 0700);
    (void)write_file_durably(Env::system(), path, digest, 0600);
  }
  return digest;
}

}  // namespace chimera
