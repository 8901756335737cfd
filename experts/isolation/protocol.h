// What the daemon and chimera-plugin-host say to one another over their socket pair: loading,
// readiness, log lines, counters, the end. Rows of a forward pass never travel here
// (memory.h).
//
// A message is one datagram: a header of 16 bytes (magic, version, type, length of the payload, 0),
// then the payload: integers little-endian and fixed-width, texts and lists with their length in
// front. Both sides check everything; the daemon takes the host for hostile, because the plugin
// runs inside it.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/library/backend.h"

namespace chimera {

/// Changes with every change of a message or of the shared memory; both programs are of one build.
inline constexpr uint16_t kHostProtocolVersion = 2;
/// Longest payload, bytes: fits the default send buffer of a socket pair.
inline constexpr size_t kMaxHostPayload = 128u << 10;

enum class HostMessage : uint16_t {
  kUnset = 0,
  kLoad = 1,      // to the host; descriptors: image, tensors, memory to the host, memory from it
  kStop = 2,      // to the host: deactivate, destroy, deinit, exit
  kReady = 3,     // from the host: serving
  kFailed = 4,    // from the host: not loaded; it exits
  kLog = 5,       // from the host
  kCounters = 6,  // from the host: chimera.metrics/1
};

struct HostFrame {
  HostMessage type = HostMessage::kUnset;
  std::string payload;
};

/// Bytes in front of a payload.
inline constexpr size_t kHostHeaderBytes = 16;
/// Header and payload as they are sent. REQUIRES: payload.size() <= kMaxHostPayload.
std::string encode_frame(HostMessage type, std::string_view payload);
/// data_corrupt on anything but exactly one frame of this version.
Result<HostFrame> decode_frame(std::string_view datagram);

/// How a host is to load its plugin. The bytes come as descriptors.
struct HostLoad {
  std::string module, version, fingerprint;
  std::string file, id, config;  // of the manifest
  int64_t deadline_ms = 0, memory_mib = 0, hidden_size = 0;
  uint32_t worker_count = 1;
  std::map<int64_t, int64_t> experts;  // of each layer
  uint64_t tensor_table_bytes = 0;     // at the start of the tensors' memory file; 0: no such file
  uint64_t slot_rows = 0;              // rows of one slot of the shared memory
  bool operator==(const HostLoad&) const = default;
};
std::string encode(const HostLoad& message);
Result<HostLoad> decode_load(std::string_view payload);

struct HostReady {
  LibraryInfo info;
  std::string sandbox;  // what is in force, and what is not
  uint64_t resident_bytes = 0;
};
std::string encode(const HostReady& message);
Result<HostReady> decode_ready(std::string_view payload);

/// kFailed.
struct HostFailed {
  Status status;  // not ok
};
std::string encode(const HostFailed& message);
Result<HostFailed> decode_failed(std::string_view payload);

struct HostLog {
  LibraryRuntime::Severity severity = LibraryRuntime::Severity::kInfo;
  std::string line;  // at most kMaxHostLine bytes
};
inline constexpr size_t kMaxHostLine = 2048;
std::string encode(const HostLog& message);
Result<HostLog> decode_log(std::string_view payload);

using HostCounters = std::map<std::string, uint64_t>;
inline constexpr size_t kMaxHostCounters = 2048;
std::string encode(const HostCounters& counters);
Result<HostCounters> decode_counters(std::string_view payload);

/// The tensors of chimera.weights/1 as they lie in their memory file: a table, then the data, each
/// tensor at a multiple of 64 bytes. `offset` counts from the start of the file.
struct HostTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0, bytes = 0;
  bool operator==(const HostTensor&) const = default;
};
std::string encode(const std::vector<HostTensor>& table);
/// Also checks that every tensor lies inside a file of `file_bytes` and has the size of its shape.
Result<std::vector<HostTensor>> decode_tensors(std::string_view table, uint64_t file_bytes);

/// `text` fit for a log or an answer: control bytes and what is not UTF-8 become '?', at most
/// `limit` bytes.
std::string printable(std::string_view text, size_t limit);

}  // namespace chimera
