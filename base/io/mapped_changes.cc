#include "base/io/mapped_changes.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
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
  Stamp stamp;
  std::vector<uint64_t> pages;  // where they begin
  std::string digest;           // of these; empty: they could not be read
  bool changed = false;
};

// A mapping has no other owner than the process, and is looked after until it goes.
Mutex watched_mutex;
std::map<const void*, Watched>* watched GUARDED_BY(watched_mutex) PT_GUARDED_BY(watched_mutex);

Stamp stamp_of(const struct stat& s) {
  return {s.st_dev, s.st_ino, static_cast<uint64_t>(s.st_size),
          int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec};
}

/// Nobody who writes knows which pages are looked at.
std::vector<uint64_t> draw_pages(uint64_t size) {
  const uint64_t pages = (size + kPage - 1) / kPage;
  std::vector<uint64_t> drawn;
  uint64_t numbers[kDrawn] = {};
  if (pages > kDrawn && ::getrandom(numbers, sizeof numbers, 0) == sizeof numbers) {
    for (const uint64_t number : numbers) drawn.push_back(number % pages * kPage);
  } else {
    for (uint64_t i = 0; i < std::min<uint64_t>(pages, kDrawn); ++i) drawn.push_back(i * kPage);
  }
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

/// Empty when they cannot be read.
std::string digest_of(const std::vector<uint64_t>& pages, int fd) {
  Sha256 digest;
  std::byte page[kPage];
  for (const uint64_t at : pages) {
    const ssize_t n = ::pread(fd, page, kPage, static_cast<off_t>(at));
    if (n < 0) return {};
    digest.update(std::span(page).first(static_cast<size_t>(n)));
  }
  return digest.finish();
}

/// Of the file at its path, as long as that is the one that is mapped.
bool has_other_content(const Watched& one) {
  const int fd = ::open(one.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  struct stat s {};
  const bool same = ::fstat(fd, &s) == 0 && stamp_of(s).same_file(one.stamp);
  const std::string digest = same ? digest_of(one.pages, fd) : "";
  ::close(fd);
  return !digest.empty() && !one.digest.empty() && digest != one.digest;
}

std::vector<std::string> changed(bool by_content) {
  std::vector<std::string> paths;
  const MutexLock lock(watched_mutex);
  if (watched == nullptr) return paths;
  for (auto& [base, one] : *watched) {
    struct stat s {};
    const Stamp now = ::stat(one.path.c_str(), &s) == 0 ? stamp_of(s) : Stamp();
    one.changed = one.changed || (now.same_file(one.stamp) && now != one.stamp) ||
                  (by_content && has_other_content(one));
    if (one.changed) paths.push_back(one.path);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace

std::vector<std::string> changed_mappings() { return changed(/*by_content=*/false); }
std::vector<std::string> changed_mappings_by_content() { return changed(/*by_content=*/true); }

void watch_mapping(const void* base, uint64_t size, const std::string& path, int fd) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return;
  Watched one{path, stamp_of(s), draw_pages(size), {}};
  one.digest = digest_of(one.pages, fd);
  const MutexLock lock(watched_mutex);
  if (watched == nullptr) watched = new std::map<const void*, Watched>;
  watched->insert_or_assign(base, std::move(one));
}

void unwatch_mapping(const void* base) {
  const MutexLock lock(watched_mutex);
  if (watched != nullptr) watched->erase(base);
}

}  // namespace chimera
