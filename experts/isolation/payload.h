// What a plugin host is given: the load message and the memory files that go with it. The daemon
// packs a LibrarySource once; every host that is started for it gets the same bytes.
//
// Thread safety: pure functions; a HostPayload is immutable.
#pragma once

#include <memory>
#include <string>

#include "base/io/sealed_file.h"
#include "base/status.h"
#include "experts/isolation/channel.h"
#include "experts/isolation/memory.h"
#include "experts/isolation/protocol.h"
#include "experts/library/backend.h"

namespace chimera {

struct HostPayload {
  HostLoad load;
  std::shared_ptr<const SealedFile> image;
  std::shared_ptr<const SealedFile> tensors;  // null: none
  /// "sha256:…" of library, plugin id and configuration: what a quarantine shuts out.
  std::string key;
};
Result<HostPayload> pack_host_payload(const LibrarySource& source, uint32_t worker_count);

/// Sends it with the two files of `port`.
Status send_host_payload(const HostChannel& channel, const HostPayload& payload,
                         const HostPort& port);

/// The other end, inside the host.
struct UnpackedPayload {
  LibrarySource source;  // isolation in-process: it is the process of its own
  HostGeometry geometry;
  ReceivedFds memory;  // to the host, from the host
  uint32_t worker_count = 1;
  uint64_t bytes = 0;  // of library, tensors and shared memory together
};
Result<UnpackedPayload> unpack_host_payload(HostChannel::Received received);

}  // namespace chimera
