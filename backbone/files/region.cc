#include "backbone/files/region.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/io/mapped_changes.h"
#include "base/io/memory_limit.h"

namespace chimera {
namespace {

constexpr size_t kHugePage = 2u << 20;
// Copies smaller than this are made without asking how much memory is left.
constexpr uint64_t kSmallCopy = 64u << 20;

}  // namespace

Region::~Region() {
  unwatch_mapping(base_);
  guard_.reset();
  ::munmap(base_, size_);
}

Status Region::protect(uint64_t size, int protection, const std::string& path) {
  if (::mprotect(base_, static_cast<size_t>(size), protection) == 0) return Status();
  return errno_status(path + ": allocate " + std::to_string(size) + " bytes", errno);
}

Result<std::shared_ptr<Region>> map_region(const std::string& path, uint64_t size, int protection,
                                           int flags, int fd) {
  void* base = ::mmap(nullptr, static_cast<size_t>(size), protection, flags, fd, 0);
  if (base == MAP_FAILED) {
    return errno_status(path + ": map " + std::to_string(size) + " bytes", errno);
  }
  return std::make_shared<Region>(base, static_cast<size_t>(size));
}

Result<std::shared_ptr<Region>> map_file(const std::string& path, uint64_t size, int fd) {
  auto region = map_region(path, size, PROT_READ, MAP_PRIVATE, fd);
  if (!region.ok()) return region;
  (*region)->guard(path);
  watch_mapping((*region)->data(), size, path, fd);
  return region;
}

Result<std::shared_ptr<Region>> reserve_region(const std::string& path, uint64_t size) {
  auto region = map_region(path, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  // Weights are nothing for a core dump; and by this mark they are found in /proc/self/smaps.
  if (region.ok()) (void)::madvise((*region)->data(), (*region)->size(), MADV_DONTDUMP);
  return region;
}

void advise_huge_pages(const Region& region) {
  if (region.size() > kHugePage) ::madvise(region.data(), region.size(), MADV_HUGEPAGE);
}

void give_back_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Status check_memory(const std::string& path, uint64_t needed) {
  if (needed < kSmallCopy) return Status();
  const auto available = available_memory();
  if (!available || needed <= *available) return Status();
  return Status(Code::kResourceExhausted,
                path + ": needs " + std::to_string(needed) + " bytes of memory, " +
                    std::to_string(*available) + " are available",
                "Free memory, or load fewer modules.");
}

Result<FileIdentity> identity_of(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_status(path + ": fstat", errno);
  const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return FileIdentity{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size),
                      ns(info.st_mtim), ns(info.st_ctim)};
}

Status check_unchanged(int fd, const std::string& path, const FileIdentity& before) {
  const auto now = identity_of(fd, path);
  if (!now.ok()) return now.status();
  if (now->size == before.size && now->modified_ns == before.modified_ns) return Status();
  return Status(Code::kDataCorrupt, path + ": changed while being read",
                "Put files in place by renaming a complete copy, then load again.");
}

}  // namespace chimera
