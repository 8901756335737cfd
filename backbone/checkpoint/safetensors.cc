#include "backbone/checkpoint/safetensors.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "backbone/checkpoint/safetensors_header.h"
#include "base/io/digest_memo.h"
#include "base/io/foreign_file.h"
#include "base/io/mapping_guard.h"
#include "base/io/memory_limit.h"
#include "base/io/read_range.h"

namespace chimera {
namespace {

constexpr uint64_t kLengthBytes = 8;  // little-endian header length at the start of the file
constexpr size_t kHugePage = 2u << 20;
// Copies smaller than this are made without asking how much memory is left.
constexpr uint64_t kSmallCopy = 64u << 20;

Status corrupt(const std::string& path, const std::string& what) {
  return Status(Code::kDataCorrupt, path + ": " + what,
                "Get the file again or write it with a current safetensors library.");
}

/// A mapping of the address space, unmapped with the last view into it.
class Region {
 public:
  Region(void* base, size_t size) : base_(base), size_(size) {}
  /// Outlives a file that shrinks.
  void guard(const std::string& path) { guard_.emplace(base_, size_, path); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    guard_.reset();
    ::munmap(base_, size_);
  }

  std::byte* data() const { return static_cast<std::byte*>(base_); }
  size_t size() const { return size_; }

 private:
  void* base_;
  size_t size_;
  std::optional<MappingGuard> guard_;
};

Result<std::shared_ptr<Region>> map_region(const std::string& path, uint64_t size, int protection,
                                           int flags, int fd) {
  void* base = ::mmap(nullptr, static_cast<size_t>(size), protection, flags, fd, 0);
  if (base == MAP_FAILED) {
    return errno_status(path + ": map " + std::to_string(size) + " bytes", errno);
  }
  return std::make_shared<Region>(base, static_cast<size_t>(size));
}

/// A sparse file costs its author nothing; copying it must not cost the daemon its life.
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

/// Refuses a file that somebody wrote to between `before` and now. The change time is left out:
/// a rename or a new link moves it and leaves the contents alone.
Status check_unchanged(int fd, const std::string& path, const FileIdentity& before) {
  const auto now = identity_of(fd, path);
  if (!now.ok()) return now.status();
  if (now->size == before.size && now->modified_ns == before.modified_ns) return Status();
  return Status(Code::kDataCorrupt, path + ": changed while being read",
                "Put files in place by renaming a complete copy, then load again.");
}

Result<uint64_t> header_length(const std::byte* bytes, uint64_t file_size,
                               const std::string& path) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;)
    length = length << 8 | std::to_integer<uint64_t>(bytes[i]);
  if (length < 2) {
    return corrupt(path, "header length is " + std::to_string(length) + ", expected at least 2");
  }
  if (length > SafetensorsFile::kMaxHeaderBytes) {
    return corrupt(path, "header length is " + std::to_string(length) + ", expected at most " +
                             std::to_string(SafetensorsFile::kMaxHeaderBytes));
  }
  if (length > file_size - kLengthBytes) {
    return corrupt(path, "header length is " + std::to_string(length) + ", but only " +
                             std::to_string(file_size - kLengthBytes) + " bytes follow");
  }
  return length;
}

Status check_size(uint64_t file_size, const std::string& path) {
  if (file_size >= kLengthBytes) return Status();
  return corrupt(path, "is " + std::to_string(file_size) +
                           " bytes long, expected at least the 8 bytes of the header length");
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

/// Fills a SafetensorsFile in the order that keeps memory small: length, header, data.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string path, Env& env) : env_(env) { file_.path_ = std::move(path); }

  Result<SafetensorsFile> open(Residency residency) {
    auto fd = ScopedFd::open_regular(env_, path());
    if (!fd.ok()) return fd.status();
    // Before the first byte is read: what changes from here on is noticed.
    const auto identity = identity_of(fd->fd(), path());
    if (!identity.ok()) return identity.status();
    file_.identity_ = *identity;
    CHIMERA_RETURN_IF_ERROR(check_kind(*fd));
    CHIMERA_RETURN_IF_ERROR(check_size(fd->size(), path()));
    const bool map_it = residency == Residency::kMapped ||
                        (residency == Residency::kAutomatic && fd->size() > kCopyAtMost);
    file_.mapped_ = map_it;
    const Status read = map_it ? map(fd->fd(), fd->size()) : copy(fd->fd(), fd->size());
    if (!read.ok()) return read;
    CHIMERA_RETURN_IF_ERROR(check_unchanged(fd->fd(), path(), file_.identity_));
    return std::move(file_);
  }

  Result<SafetensorsFile> parse(std::span<const std::byte> image) {
    CHIMERA_RETURN_IF_ERROR(refuse_foreign_file(
        text_of(image.first(std::min(image.size(), kForeignFileBytes))), path()));
    CHIMERA_RETURN_IF_ERROR(check_size(image.size(), path()));
    file_.image_ = image;
    const auto length = header_length(image.data(), image.size(), path());
    if (!length.ok()) return length.status();
    CHIMERA_RETURN_IF_ERROR(
        parse_header(text_of(image.subspan(kLengthBytes, static_cast<size_t>(*length)))));
    return std::move(file_);
  }

 private:
  const std::string& path() const { return file_.path_; }

  /// A file of another kind would be told of by its header length, which helps nobody.
  Status check_kind(const ScopedFd& fd) {
    std::array<std::byte, kForeignFileBytes> begin;
    const auto size = static_cast<size_t>(std::min<uint64_t>(fd.size(), begin.size()));
    CHIMERA_RETURN_IF_ERROR(read_range(env_, fd.fd(), path(), begin.data(), 0, size));
    return refuse_foreign_file(text_of(std::span(begin).first(size)), path());
  }

  /// Reserves addresses for the whole file, but memory only for what has been validated.
  Status copy(int fd, uint64_t size) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    auto region = map_region(path(), size, PROT_NONE, flags, -1);
    if (!region.ok()) return region.status();
    adopt(*region);
    std::byte* base = (*region)->data();
    std::byte prefix[kLengthBytes];
    CHIMERA_RETURN_IF_ERROR(read_range(env_, fd, path(), prefix, 0, kLengthBytes));
    const auto length = header_length(prefix, size, path());
    if (!length.ok()) return length.status();
    CHIMERA_RETURN_IF_ERROR(protect(base, kLengthBytes + *length, PROT_READ | PROT_WRITE));
    std::memcpy(base, prefix, kLengthBytes);
    CHIMERA_RETURN_IF_ERROR(
        read_range(env_, fd, path(), base + kLengthBytes, kLengthBytes, *length));
    CHIMERA_RETURN_IF_ERROR(
        parse_header(text_of(file_.image_.subspan(kLengthBytes, static_cast<size_t>(*length)))));
    CHIMERA_RETURN_IF_ERROR(check_memory(path(), size));
    CHIMERA_RETURN_IF_ERROR(protect(base, size, PROT_READ | PROT_WRITE));
    // Best effort: fewer TLB misses while weights stream through the cores.
    if (size > kHugePage) ::madvise(base, static_cast<size_t>(size), MADV_HUGEPAGE);
    const uint64_t done = kLengthBytes + *length;
    CHIMERA_RETURN_IF_ERROR(read_range(env_, fd, path(), base + done, done, size - done));
    return protect(base, size, PROT_READ);  // a stray write becomes a fault, not a wrong weight
  }

  Status map(int fd, uint64_t size) {
    auto region = map_region(path(), size, PROT_READ, MAP_PRIVATE, fd);
    if (!region.ok()) return region.status();
    (*region)->guard(path());
    adopt(*region);
    const auto length = header_length((*region)->data(), size, path());
    if (!length.ok()) return length.status();
    // The header is parsed from a copy, so that a writer cannot change it under the parser.
    const std::string header(
        text_of(file_.image_.subspan(kLengthBytes, static_cast<size_t>(*length))));
    return parse_header(header);
  }

  void adopt(const std::shared_ptr<Region>& region) {
    file_.owner_ = region;
    file_.image_ = std::span<const std::byte>(region->data(), region->size());
  }

  Status protect(std::byte* base, uint64_t size, int protection) {
    if (::mprotect(base, static_cast<size_t>(size), protection) == 0) return Status();
    return errno_status(path() + ": allocate " + std::to_string(size) + " bytes", errno);
  }

  Status parse_header(std::string_view text) {
    const auto data = file_.image_.subspan(kLengthBytes + text.size());
    auto header = parse_safetensors_header(text, data, file_.owner_, path());
    if (!header.ok()) return header.status();
    file_.tensors_ = std::move(header->tensors);
    file_.by_name_ = std::move(header->by_name);
    file_.metadata_ = std::move(header->metadata);
    return Status();
  }

  Env& env_;
  SafetensorsFile file_;
};

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path, Residency residency,
                                              Env& env) {
  return SafetensorsParser(path, env).open(residency);
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> image,
                                               std::string label) {
  return SafetensorsParser(std::move(label), Env::system()).parse(image);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto at =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  if (at == by_name_.end() || tensors_[*at].name != name) return nullptr;
  return &tensors_[*at];
}

std::string SafetensorsFile::sha256(DigestMemo* memo) const { return sha256_of(image_, memo); }

}  // namespace chimera
