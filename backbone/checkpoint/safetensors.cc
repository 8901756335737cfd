#include "backbone/checkpoint/safetensors.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backbone/checkpoint/block_types_entry.h"
#include "backbone/checkpoint/packed_entry.h"
#include "backbone/checkpoint/safetensors_header.h"
#include "base/io/digest_memo.h"
#include "base/io/foreign_file.h"
#include "base/io/read_range.h"

namespace chimera {
namespace {

constexpr uint64_t kLengthBytes = 8;  // little-endian header length at the start of the file

Status corrupt(const std::string& path, const std::string& what) {
  return Status(Code::kDataCorrupt, path + ": " + what,
                "Get the file again or write it with a current safetensors library.");
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
    file_.bytes_ = image.size();
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
    auto region = reserve_region(path(), size);
    if (!region.ok()) return region.status();
    adopt(*region);
    std::byte* base = (*region)->data();
    std::byte prefix[kLengthBytes];
    CHIMERA_RETURN_IF_ERROR(read_range(env_, fd, path(), prefix, 0, kLengthBytes));
    const auto length = header_length(prefix, size, path());
    if (!length.ok()) return length.status();
    CHIMERA_RETURN_IF_ERROR(
        (*region)->protect(kLengthBytes + *length, PROT_READ | PROT_WRITE, path()));
    std::memcpy(base, prefix, kLengthBytes);
    CHIMERA_RETURN_IF_ERROR(
        read_range(env_, fd, path(), base + kLengthBytes, kLengthBytes, *length));
    CHIMERA_RETURN_IF_ERROR(
        parse_header(text_of(file_.image_.subspan(kLengthBytes, static_cast<size_t>(*length)))));
    CHIMERA_RETURN_IF_ERROR(check_memory(path(), size));
    CHIMERA_RETURN_IF_ERROR((*region)->protect(size, PROT_READ | PROT_WRITE, path()));
    advise_huge_pages(**region);
    const uint64_t done = kLengthBytes + *length;
    CHIMERA_RETURN_IF_ERROR(read_range(env_, fd, path(), base + done, done, size - done));
    return (*region)->protect(size, PROT_READ,
                              path());  // a stray write becomes a fault, not a wrong weight
  }

  Status map(int fd, uint64_t size) {
    auto region = map_file(path(), size, fd);
    if (!region.ok()) return region.status();
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
    file_.image_ = region->bytes();
    file_.bytes_ = region->size();
  }

  Status parse_header(std::string_view text) {
    const auto data = file_.image_.subspan(kLengthBytes + text.size());
    auto header = parse_safetensors_header(text, data, file_.owner_, path());
    if (!header.ok()) return header.status();
    CHIMERA_RETURN_IF_ERROR(apply_block_types(header->metadata, header->tensors, path()));
    CHIMERA_RETURN_IF_ERROR(
        apply_packed(header->metadata, file_.image_.data(), header->tensors, path()));
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

std::string SafetensorsFile::sha256(DigestMemo* memo) const { return sha256_of(image_, memo); }

}  // namespace chimera
