#include "experts/isolation/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/utf8.h"

namespace chimera {
namespace {

constexpr uint32_t kMagic = 0x48504843;  // "CHPH"
// Bounds of a decoded message, above what the loader accepts and far below what would hurt.
constexpr size_t kMaxText = 65536;
constexpr size_t kMaxItems = 65536;
constexpr size_t kMaxRank = 8;
constexpr uint64_t kTensorAlignment = 64;

class Writer {
 public:
  void u8(uint8_t v) { out_.push_back(static_cast<char>(v)); }
  void u16(uint16_t v) { integer(v, 2); }
  void u32(uint32_t v) { integer(v, 4); }
  void u64(uint64_t v) { integer(v, 8); }
  void i64(int64_t v) { integer(static_cast<uint64_t>(v), 8); }
  void text(std::string_view v) {
    u32(static_cast<uint32_t>(v.size()));
    out_.append(v);
  }
  std::string take() { return std::move(out_); }

 private:
  void integer(uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) out_.push_back(static_cast<char>((v >> (8 * i)) & 0xff));
  }
  std::string out_;
};

/// Reads what Writer wrote. After the first thing that does not fit everything is zero and empty,
/// and finish() says so; loops are bounded by count().
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}

  uint8_t u8() { return static_cast<uint8_t>(integer(1)); }
  uint16_t u16() { return static_cast<uint16_t>(integer(2)); }
  uint32_t u32() { return static_cast<uint32_t>(integer(4)); }
  uint64_t u64() { return integer(8); }
  int64_t i64() { return static_cast<int64_t>(integer(8)); }
  bool boolean() {
    const uint8_t v = u8();
    if (v > 1) fail();
    return v == 1;
  }
  std::string text(size_t limit = kMaxText) {
    const uint32_t n = u32();
    if (n > limit || n > in_.size()) return fail(), std::string();
    std::string out(in_.substr(0, n));
    in_.remove_prefix(n);
    return out;
  }
  /// A number of items that take at least `item_bytes` each.
  size_t count(size_t item_bytes, size_t limit = kMaxItems) {
    const uint32_t n = u32();
    if (n > limit || n > in_.size() / item_bytes) return fail(), 0;
    return n;
  }
  void fail() {
    ok_ = false;
    in_ = {};
  }
  bool ok() const { return ok_; }
  /// ok when everything fitted and nothing is left.
  Status finish(std::string_view what) const {
    if (ok_ && in_.empty()) return {};
    return {Code::kDataCorrupt,
            fmt::format("plugin host: found a malformed message {} (expected the form of protocol "
                        "version {})",
                        what, kHostProtocolVersion)};
  }

 private:
  uint64_t integer(size_t bytes) {
    if (in_.size() < bytes) return fail(), 0;
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; ++i) {
      v |= static_cast<uint64_t>(static_cast<unsigned char>(in_[i])) << (8 * i);
    }
    in_.remove_prefix(bytes);
    return v;
  }
  std::string_view in_;
  bool ok_ = true;
};

/// Bytes of a dense tensor; false when they do not fit 64 bits or end inside a byte.
bool tensor_bytes(const HostTensor& t, uint64_t* bytes) {
  uint64_t elements = 1;
  for (const int64_t d : t.shape) {
    if (d < 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(d), &elements))
      return false;
  }
  uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dtype_bits(t.dtype)), &bits)) {
    return false;
  }
  *bytes = bits / 8;
  return bits % 8 == 0;
}

}  // namespace

std::string encode_frame(HostMessage type, std::string_view payload) {
  Writer out;
  out.u32(kMagic);
  out.u16(kHostProtocolVersion);
  out.u16(static_cast<uint16_t>(type));
  out.u32(static_cast<uint32_t>(payload.size()));
  out.u32(0);
  return out.take().append(payload);
}

Result<HostFrame> decode_frame(std::string_view datagram) {
  Reader in(datagram.substr(0, kHostHeaderBytes));
  const uint32_t magic = in.u32();
  const uint16_t version = in.u16();
  const uint16_t type = in.u16();
  const uint32_t length = in.u32();
  const uint32_t reserved = in.u32();
  CHIMERA_RETURN_IF_ERROR(in.finish("header"));
  if (magic != kMagic || version != kHostProtocolVersion) {
    return Status(Code::kDataCorrupt,
                  fmt::format("plugin host: found a message of protocol version {} (expected {})",
                              version, kHostProtocolVersion),
                  "chimerad and chimera-plugin-host must be of the same build.");
  }
  const bool known = type >= static_cast<uint16_t>(HostMessage::kLoad) &&
                     type <= static_cast<uint16_t>(HostMessage::kCounters);
  if (!known || reserved != 0 || length > kMaxHostPayload ||
      length != datagram.size() - kHostHeaderBytes) {
    return Status(Code::kDataCorrupt,
                  fmt::format("plugin host: found a message of type {} with {} bytes, header says "
                              "{} (expected types 1 to 6 and equal lengths)",
                              type, datagram.size() - kHostHeaderBytes, length));
  }
  return HostFrame{static_cast<HostMessage>(type), std::string(datagram.substr(kHostHeaderBytes))};
}

std::string encode(const HostLoad& m) {
  Writer out;
  for (const auto* text : {&m.module, &m.version, &m.fingerprint, &m.file, &m.id, &m.config}) {
    out.text(*text);
  }
  for (const int64_t v : {m.deadline_ms, m.memory_mib, m.hidden_size}) out.i64(v);
  out.u32(m.worker_count);
  out.u32(static_cast<uint32_t>(m.experts.size()));
  for (const auto& [layer, count] : m.experts) {
    out.i64(layer);
    out.i64(count);
  }
  out.u64(m.tensor_table_bytes);
  out.u64(m.slot_rows);
  return out.take();
}

Result<HostLoad> decode_load(std::string_view payload) {
  Reader in(payload);
  HostLoad m;
  for (auto* text : {&m.module, &m.version, &m.fingerprint, &m.file, &m.id, &m.config}) {
    *text = in.text();
  }
  for (int64_t* v : {&m.deadline_ms, &m.memory_mib, &m.hidden_size}) *v = in.i64();
  m.worker_count = in.u32();
  for (size_t n = in.count(16); n > 0 && in.ok(); --n) {
    const int64_t layer = in.i64();
    const int64_t count = in.i64();
    const bool ascends = m.experts.empty() || layer > m.experts.rbegin()->first;
    if (layer < 0 || count < 1 || !ascends) in.fail();
    m.experts[layer] = count;
  }
  m.tensor_table_bytes = in.u64();
  m.slot_rows = in.u64();
  if (m.worker_count < 1 || m.hidden_size < 1 || m.deadline_ms < 1 || m.memory_mib < 0 ||
      m.slot_rows < 1) {
    in.fail();
  }
  CHIMERA_RETURN_IF_ERROR(in.finish("load"));
  return m;
}

std::string encode(const HostReady& m) {
  Writer out;
  const LibraryInfo& i = m.info;
  for (const auto* text : {&i.id, &i.version, &i.vendor, &i.build, &i.abi}) out.text(*text);
  for (const bool flag : {i.bitwise, i.reentrant, i.unload_clean}) out.u8(flag ? 1 : 0);
  out.i64(i.max_rows);
  out.text(m.sandbox);
  out.u64(m.resident_bytes);
  return out.take();
}

Result<HostReady> decode_ready(std::string_view payload) {
  Reader in(payload);
  HostReady m;
  LibraryInfo& i = m.info;
  for (auto* text : {&i.id, &i.version, &i.vendor, &i.build, &i.abi}) {
    *text = printable(in.text(1024), 1024);
  }
  for (bool* flag : {&i.bitwise, &i.reentrant, &i.unload_clean}) *flag = in.boolean();
  i.max_rows = in.i64();
  m.sandbox = printable(in.text(4096), 4096);
  m.resident_bytes = in.u64();
  if (i.max_rows < 1) in.fail();
  CHIMERA_RETURN_IF_ERROR(in.finish("ready"));
  return m;
}

std::string encode(const HostFailed& message) {
  const Status& status = message.status;
  Writer out;
  out.u32(static_cast<uint32_t>(status.code()));
  out.text(status.message().substr(0, kMaxText));
  out.text(status.hint().substr(0, kMaxText));
  return out.take();
}

Result<HostFailed> decode_failed(std::string_view payload) {
  Reader in(payload);
  const uint32_t code = in.u32();
  const std::string message = printable(in.text(), kMaxText);
  const std::string hint = printable(in.text(), kMaxText);
  if (code == CHIMERA_OK || code > CHIMERA_INTERNAL) in.fail();
  CHIMERA_RETURN_IF_ERROR(in.finish("failed"));
  return HostFailed{Status(static_cast<Code>(code), message, hint)};
}

std::string encode(const HostLog& m) {
  Writer out;
  out.u8(static_cast<uint8_t>(m.severity));
  out.text(m.line.substr(0, kMaxHostLine));
  return out.take();
}

Result<HostLog> decode_log(std::string_view payload) {
  Reader in(payload);
  HostLog m;
  const uint8_t severity = in.u8();
  m.line = printable(in.text(kMaxHostLine), kMaxHostLine);
  if (severity > static_cast<uint8_t>(LibraryRuntime::Severity::kError)) in.fail();
  CHIMERA_RETURN_IF_ERROR(in.finish("log"));
  m.severity = static_cast<LibraryRuntime::Severity>(severity);
  return m;
}

std::string encode(const HostCounters& counters) {
  Writer out;
  const size_t n = std::min(counters.size(), kMaxHostCounters);
  out.u32(static_cast<uint32_t>(n));
  size_t written = 0;
  for (const auto& [name, value] : counters) {
    if (written++ == n) break;
    out.text(std::string_view(name).substr(0, 128));
    out.u64(value);
  }
  return out.take();
}

Result<HostCounters> decode_counters(std::string_view payload) {
  Reader in(payload);
  HostCounters counters;
  for (size_t n = in.count(12, kMaxHostCounters); n > 0 && in.ok(); --n) {
    std::string name = printable(in.text(128), 128);
    counters[std::move(name)] = in.u64();
  }
  CHIMERA_RETURN_IF_ERROR(in.finish("counters"));
  return counters;
}

std::string encode(const std::vector<HostTensor>& table) {
  Writer out;
  out.u32(static_cast<uint32_t>(table.size()));
  for (const HostTensor& t : table) {
    out.text(t.name);
    out.u8(static_cast<uint8_t>(t.dtype));
    out.u32(static_cast<uint32_t>(t.shape.size()));
    for (const int64_t d : t.shape) out.i64(d);
    out.u64(t.offset);
    out.u64(t.bytes);
  }
  return out.take();
}

Result<std::vector<HostTensor>> decode_tensors(std::string_view table, uint64_t file_bytes) {
  Reader in(table);
  std::vector<HostTensor> tensors;
  for (size_t n = in.count(25, std::numeric_limits<uint32_t>::max()); n > 0 && in.ok(); --n) {
    HostTensor t;
    t.name = in.text();
    const uint8_t dtype = in.u8();
    t.shape.resize(in.count(8, kMaxRank));
    for (int64_t& d : t.shape) d = in.i64();
    t.offset = in.u64();
    t.bytes = in.u64();
    uint64_t expected = 0;
    if (dtype > static_cast<uint8_t>(DType::kU16)) {
      in.fail();
      break;
    }
    t.dtype = static_cast<DType>(dtype);
    if (!tensor_bytes(t, &expected) || expected != t.bytes || t.offset % kTensorAlignment != 0 ||
        t.offset > file_bytes || t.bytes > file_bytes - t.offset) {
      in.fail();
    }
    tensors.push_back(std::move(t));
  }
  CHIMERA_RETURN_IF_ERROR(in.finish("table of tensors"));
  return tensors;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    const size_t n = utf8_length(text);
    const bool control = n == 1 && (static_cast<unsigned char>(text[0]) < 0x20 || text[0] == 0x7f);
    if (out.size() + std::max<size_t>(n, 1) > limit) break;
    if (n == 0 || control) {
      out.push_back('?');
    } else {
      out.append(text.substr(0, n));
    }
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out;
}

}  // namespace chimera
