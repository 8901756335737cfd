#include "backbone/gguf/gguf_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "backbone/gguf/format.h"
#include "backbone/gguf/header.h"
#include "base/io/foreign_file.h"
#include "base/io/read_range.h"

namespace chimera {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The whole file in memory of its own.
Result<std::shared_ptr<Region>> copy_file(Env& env, const ScopedFd& fd, const std::string& path) {
  CHIMERA_RETURN_IF_ERROR(check_memory(path, fd.size()));
  auto region = reserve_region(path, fd.size());
  if (!region.ok()) return region;
  CHIMERA_RETURN_IF_ERROR((*region)->protect(fd.size(), PROT_READ | PROT_WRITE, path));
  advise_huge_pages(**region);
  CHIMERA_RETURN_IF_ERROR(read_range(env, fd.fd(), path, (*region)->data(), 0, fd.size()));
  CHIMERA_RETURN_IF_ERROR((*region)->protect(fd.size(), PROT_READ, path));
  return region;
}

Status refuse_other(std::span<const std::byte> image, const std::string& path) {
  const std::string_view begin = text_of(image.first(std::min(image.size(), kForeignFileBytes)));
  if (begin.starts_with(kGgufMagic)) return {};
  CHIMERA_RETURN_IF_ERROR(refuse_pointer_file(begin, path));
  return {Code::kDataCorrupt, path + ": does not begin with \"GGUF\" (expected a GGUF file)",
          "Point to a GGUF file or to the directory of a Hugging Face checkpoint."};
}

}  // namespace

Result<GgufFile> GgufFile::parse(std::span<const std::byte> image, std::string label) {
  CHIMERA_RETURN_IF_ERROR(refuse_other(image, label));
  Result<GgufHeader> header = parse_gguf_header(image, nullptr, label);
  if (!header.ok()) return header.status();
  GgufFile file;
  static_cast<TensorFile&>(file) =
      TensorFile(std::move(label), std::move(header->tensors), image.size(), false, {}, nullptr);
  file.metadata_ = std::move(header->metadata);
  return file;
}

Result<GgufFile> GgufFile::open(const std::string& path, Residency residency, Env& env) {
  auto fd = ScopedFd::open_regular(env, path);
  if (!fd.ok()) return fd.status();
  const auto identity = identity_of(fd->fd(), path);  // before the first byte is read
  if (!identity.ok()) return identity.status();
  if (fd->size() < kGgufMagic.size())
    return Status(Code::kDataCorrupt, path + ": is " + std::to_string(fd->size()) +
                                          " bytes long (expected a GGUF file)");
  const bool map_it = residency == Residency::kMapped ||
                      (residency == Residency::kAutomatic && fd->size() > kCopyAtMost);
  auto region = map_it ? map_file(path, fd->size(), fd->fd()) : copy_file(env, *fd, path);
  if (!region.ok()) return region.status();
  const std::span<const std::byte> image = (*region)->bytes();
  CHIMERA_RETURN_IF_ERROR(refuse_other(image, path));
  Result<GgufHeader> header = parse_gguf_header(image, *region, path);
  if (!header.ok()) return header.status();
  CHIMERA_RETURN_IF_ERROR(check_unchanged(fd->fd(), path, *identity));
  GgufFile file;
  static_cast<TensorFile&>(file) =
      TensorFile(path, std::move(header->tensors), image.size(), map_it, *identity, *region);
  file.metadata_ = std::move(header->metadata);
  return file;
}

bool is_gguf_file(const std::string& path) {
  Env& env = Env::system();
  const auto fd = ScopedFd::open_regular(env, path);
  if (!fd.ok() || fd->size() < kGgufMagic.size()) return false;
  std::array<std::byte, kGgufMagic.size()> begin;
  return read_range(env, fd->fd(), path, begin.data(), 0, begin.size()).ok() &&
         text_of(begin) == kGgufMagic;
}

}  // namespace chimera
