#include "base/io/mapped_changes.h"

#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "base/io/digest.h"
#include "base/threads/mutex.h"

namespace chimera {
namespace {

constexpr size_t kPage = 4096;
// A change of a whole file, or of the weights of an expert, hits one of them; more would make
// mapping slow where pages come from a disk.
constexpr size_t kDrawn = 32;

/// What `stat` says of the contents of a file.
struct Stamp {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t modified_ns = 0;
  bool same_file(const Stamp& other) const {
    return device == other.device && inode == other.inode;
  }
  bool operator==(const Stamp&) const = default;
};

struct Watched {
  std::string path;
  std::span<const std::byte> bytes;
  Stamp stamp;
  std::vector<size_t> pages;  // where they begin
  std::string digest;         // of these
  bool changed = false;
};

// A mapping has no other owner than the process, and is looked after until it goes.
Mutex watched_mutex;
std::map<const void*, Watched>* watched GUARDED_BY(watched_mutex) PT_GUARDED_BY(watched_mutex);

/// All zero when there is no such file.
Stamp stamp_of(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return {};
  return {s.st_dev, s.st_ino, static_cast<uint64_t>(s.st_size),
          int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec};
}

/// Nobody who writes knows which pages are looked at.
std::vector<size_t> draw_pages(size_t size) {
  const size_t pages = (size + kPage - 1) / kPage;
  std::vector<size_t> drawn;
  uint64_t numbers[kDrawn] = {};
  if (pages > kDrawn && ::getrandom(numbers, sizeof numbers, 0) == sizeof numbers) {
    for (const uint64_t number : numbers) drawn.push_back(number % pages * kPage);
  } else {
    for (size_t i = 0; i < std::min(pages, kDrawn); ++i) drawn.push_back(i * kPage);
  }
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

std::string digest_of(const Watched& one) {
  Sha256 digest;
  for (const size_t at : one.pages) {
    digest.update(one.bytes.subspan(at, std::min(kPage, one.bytes.size() - at)));
  }
  return digest.finish();
}

std::vector<std::string> changed(bool by_content) {
  std::vector<std::string> paths;
  const MutexLock lock(watched_mutex);
  if (watched == nullptr) return paths;
  for (auto& [base, one] : *watched) {
    const Stamp now = stamp_of(one.path);
    one.changed = one.changed || (now.same_file(one.stamp) && now != one.stamp) ||
                  (by_content && digest_of(one) != one.digest);
    if (one.changed) paths.push_back(one.path);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace

std::vector<std::string> changed_mappings() { return changed(/*by_content=*/false); }
std::vector<std::string> changed_mappings_by_content() { return changed(/*by_content=*/true); }

void watch_mapping(std::span<const std::byte> bytes, const std::string& path) {
  Watched one{path, bytes, stamp_of(path), draw_pages(bytes.size()), {}};
  one.digest = digest_of(one);
  const MutexLock lock(watched_mutex);
  if (watched == nullptr) watched = new std::map<const void*, Watched>;
  watched->insert_or_assign(bytes.data(), std::move(one));
}

void unwatch_mapping(const void* base) {
  const MutexLock lock(watched_mutex);
  if (watched != nullptr) watched->erase(base);
}

}  // namespace chimera
