#include "experts/isolation/payload.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>

#include "base/io/env.h"
#include "experts/isolation/memory_layout.h"
#include "experts/library/elf_note.h"
#include "experts/library/quarantine.h"

namespace chimera {
namespace {

namespace bi = boost::interprocess;

constexpr uint64_t kAlignment = 64;

uint64_t aligned(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

Status write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return errno_status("copying tensors for a plugin host", n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

/// Table and data, sealed. `table_bytes` is filled in.
Result<std::shared_ptr<const SealedFile>> pack_tensors(const std::vector<TensorView>& views,
                                                       uint64_t* table_bytes) {
  if (views.empty()) return std::shared_ptr<const SealedFile>();
  std::vector<HostTensor> table;
  table.reserve(views.size());
  for (const TensorView& v : views) {
    table.push_back({v.name, v.dtype, v.shape, 0, v.bytes.size()});
  }
  *table_bytes = encode(table).size();  // offsets have a fixed width
  uint64_t end = aligned(*table_bytes);
  for (HostTensor& t : table) {
    t.offset = end;
    end = aligned(end + t.bytes);
  }
  const std::string name = "chimera-tensors";
  const int fd = ::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return errno_status("memory file for tensors", errno);
  Status status;
  if (::ftruncate(fd, static_cast<off_t>(end)) != 0) {
    status = errno_status("memory file for tensors", errno);
  }
  const std::string encoded = encode(table);
  if (status.ok()) status = write_at(fd, std::as_bytes(std::span(encoded)), 0);
  for (size_t i = 0; i < views.size() && status.ok(); ++i) {
    status = write_at(fd, views[i].bytes, table[i].offset);
  }
  if (status.ok()) status = seal_memory_file(fd, "sealing tensors");
  if (!status.ok()) {
    ::close(fd);
    return status;
  }
  Result<SealedFile> file = SealedFile::adopt(fd, name);
  if (!file.ok()) return file.status();
  return std::make_shared<const SealedFile>(std::move(*file));
}

Result<std::shared_ptr<const bi::mapped_region>> map_sealed(const SealedFile& file) {
  auto region = host_layout::map_file(file.fd(), bi::read_only, file.size());
  if (!region.ok()) return region.status();
  auto shared = std::make_shared<bi::mapped_region>();
  shared->swap(*region);
  return std::shared_ptr<const bi::mapped_region>(std::move(shared));
}

std::span<const std::byte> bytes_of(const bi::mapped_region& region) {
  return {static_cast<const std::byte*>(region.get_address()), region.get_size()};
}

Result<std::vector<TensorView>> unpack_tensors(int fd, uint64_t table_bytes) {
  Result<SealedFile> file = SealedFile::adopt(fd, "chimera-tensors");
  if (!file.ok()) return file.status();
  const auto region = map_sealed(*file);
  if (!region.ok()) return region.status();
  const std::span<const std::byte> all = bytes_of(**region);
  if (table_bytes > all.size()) {
    return Status(Code::kDataCorrupt,
                  fmt::format("plugin host: found a table of {} bytes in a file of {} (expected "
                              "less)",
                              table_bytes, all.size()));
  }
  const auto table = decode_tensors(
      {reinterpret_cast<const char*>(all.data()), static_cast<size_t>(table_bytes)}, all.size());
  if (!table.ok()) return table.status();
  std::vector<TensorView> views;
  for (const HostTensor& t : *table) {
    views.push_back({t.name, t.dtype, t.shape, all.subspan(t.offset, t.bytes), *region});
  }
  return views;
}

}  // namespace

Result<HostPayload> pack_host_payload(const LibrarySource& source, uint32_t worker_count) {
  HostPayload payload;
  HostLoad& load = payload.load;
  load.module = source.module;
  load.version = source.version;
  load.fingerprint = source.fingerprint;
  load.file = source.spec.file;
  load.id = source.spec.id;
  load.config = source.spec.config;
  load.deadline_ms = source.spec.deadline_ms;
  load.memory_mib = source.spec.memory_mib;
  load.hidden_size = source.hidden_size;
  load.worker_count = worker_count;
  load.experts = source.experts;
  load.slot_rows = HostGeometry::default_slot_rows(static_cast<uint64_t>(source.hidden_size));
  auto tensors = pack_tensors(source.tensors, &load.tensor_table_bytes);
  if (!tensors.ok()) return tensors.status();
  payload.tensors = std::move(*tensors);
  payload.image = source.image;
  Result<std::string> key = library_key(source);
  if (!key.ok()) return key.status();
  payload.key = std::move(*key);
  return payload;
}

Status send_host_payload(const HostChannel& channel, const HostPayload& payload,
                         const HostPort& port) {
  std::array<int, HostChannel::kMaxFds> fds = {payload.image->fd(), port.to_host_fd(),
                                               port.from_host_fd(), -1};
  const bool tensors = payload.tensors != nullptr;
  if (tensors) fds[3] = payload.tensors->fd();
  return channel.send(HostMessage::kLoad, encode(payload.load),
                      std::span<const int>(fds).first(tensors ? 4 : 3));
}

Result<UnpackedPayload> unpack_host_payload(HostChannel::Received received) {
  const Result<HostLoad> load = decode_load(received.frame.payload);
  if (!load.ok()) return load.status();
  const size_t expected = load->tensor_table_bytes > 0 ? 4 : 3;
  if (received.frame.type != HostMessage::kLoad || received.fds.size() != expected) {
    return Status(Code::kDataCorrupt,
                  fmt::format("plugin host: found {} descriptors with the first message (expected "
                              "{} and a load message)",
                              received.fds.size(), expected));
  }
  UnpackedPayload out;
  LibrarySource& source = out.source;
  source.module = load->module;
  source.version = load->version;
  source.fingerprint = load->fingerprint;
  source.spec.file = load->file;
  source.spec.id = load->id;
  source.spec.config = load->config;
  source.spec.deadline_ms = load->deadline_ms;
  source.spec.memory_mib = load->memory_mib;
  source.spec.isolation = Isolation::kInProcess;
  source.hidden_size = load->hidden_size;
  source.experts = load->experts;
  Result<SealedFile> image = SealedFile::adopt(received.fds.take(0), "chimera-" + load->module);
  if (!image.ok()) return image.status();
  out.bytes = image->size();
  source.image = std::make_shared<const SealedFile>(std::move(*image));
  const auto mapped = map_sealed(*source.image);
  if (!mapped.ok()) return mapped.status();
  Result<ElfNote> note = read_elf_note(bytes_of(**mapped), load->file);
  if (!note.ok()) return note.status();
  source.note = std::move(*note);
  if (load->tensor_table_bytes > 0) {
    auto tensors = unpack_tensors(received.fds.take(3), load->tensor_table_bytes);
    if (!tensors.ok()) return tensors.status();
    source.tensors = std::move(*tensors);
    for (const TensorView& t : source.tensors) out.bytes += t.bytes.size();
  }
  out.geometry = {static_cast<uint64_t>(load->hidden_size), load->slot_rows};
  CHIMERA_RETURN_IF_ERROR(out.geometry.check());
  out.memory.add(received.fds.take(1));
  out.memory.add(received.fds.take(2));
  out.bytes += out.geometry.to_host_bytes() + out.geometry.from_host_bytes();
  out.worker_count = load->worker_count;
  return out;
}

}  // namespace chimera
