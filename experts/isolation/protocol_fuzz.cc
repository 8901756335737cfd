// Fuzz target: what chimerad reads from a plugin host - frames and their payloads, and the
// descriptors in shared memory. The first byte picks the reader. What is accepted must be written
// and read back the same, and must stay inside its bounds.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>

#include "experts/isolation/memory.h"
#include "experts/isolation/protocol.h"

namespace {

using namespace chimera;  // NOLINT: a program of one file

void check(bool holds) {
  if (!holds) std::abort();
}

void frame(std::string_view in) {
  const auto f = decode_frame(in);
  if (f.ok()) check(encode_frame(f->type, f->payload) == in);
}

void load(std::string_view in) {
  const auto m = decode_load(in);
  if (m.ok()) check(encode(*m) == in);
}

void ready(std::string_view in) {
  const auto m = decode_ready(in);
  if (m.ok()) check(decode_ready(encode(*m)).ok());
}

void failed(std::string_view in) {
  const auto m = decode_failed(in);
  if (m.ok()) check(!m->status.ok() && decode_failed(encode(*m)).ok());
}

void log_line(std::string_view in) {
  const auto m = decode_log(in);
  if (!m.ok()) return;
  check(m->line.size() <= kMaxHostLine);
  for (const char c : m->line) check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

void counters(std::string_view in) {
  const auto m = decode_counters(in);
  if (m.ok()) check(*decode_counters(encode(*m)) == *m);
}

void tensors(std::string_view in) {
  const auto m = decode_tensors(in, 4096);
  if (!m.ok()) return;
  for (const HostTensor& t : *m) check(t.offset <= 4096 && t.bytes <= 4096 - t.offset);
  check(encode(*m) == in);
}

void descriptors(std::string_view in) {
  constexpr HostGeometry kGeometry{64, 32};
  HostRequest request;
  HostResponse response;
  if (in.size() < sizeof(request) + sizeof(response)) return;
  std::memcpy(&request, in.data(), sizeof(request));
  std::memcpy(&response, in.data() + sizeof(request), sizeof(response));
  if (check_request(request, request.sequence, kGeometry).ok()) {
    const uint64_t bytes = request.rows * kGeometry.row_bytes();
    check(request.x_offset + bytes <= kGeometry.to_host_bytes());
    check(request.epochs_offset + request.rows * sizeof(uint64_t) <= kGeometry.to_host_bytes());
    check(request.y_offset + bytes + kHostGuardBytes <= kGeometry.from_host_bytes());
  }
  if (check_response(response, response.sequence).ok()) {
    check(response.text_bytes <= kHostTextBytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view in(reinterpret_cast<const char*>(data) + 1, size - 1);
  constexpr void (*kReaders[])(std::string_view) = {frame,    load,     ready,   failed,
                                                    log_line, counters, tensors, descriptors};
  kReaders[data[0] % std::size(kReaders)](in);
  return 0;
}
