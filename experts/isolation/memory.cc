#include "experts/isolation/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/file_mapping.hpp>

#include "base/io/env.h"
#include "chimera/status_code.h"
#include "experts/isolation/memory_layout.h"

namespace chimera {
namespace {

using host_layout::kFromHostRows;
using host_layout::kPage;
using host_layout::kToHostRows;

constexpr uint64_t kMaxBytes = uint64_t{1} << 40;
constexpr uint64_t kSlotBytes = 8u << 20;
constexpr uint64_t kMostSlotRows = 256;

// 80 us bridge the gap between two layers of a decode step of a small model (see ThreadPool); where
// the other side cannot run while we spin, the budget sinks to what a clock read costs.
constexpr std::chrono::nanoseconds kMostSpin = std::chrono::microseconds(80);
constexpr std::chrono::nanoseconds kLeastSpin = std::chrono::microseconds(1);

// A machine that became idle is found out after as many waits: a few milliseconds of decoding.
constexpr uint32_t kLongestPause = 63;

uint64_t round_up(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

/// Rows of one call and their epochs.
uint64_t x_slot(const HostGeometry& g) {
  return round_up(g.slot_rows * g.row_bytes()) + round_up(g.slot_rows * sizeof(uint64_t));
}

}  // namespace

uint64_t HostGeometry::default_slot_rows(uint64_t hidden) {
  return std::clamp<uint64_t>(kSlotBytes / std::max<uint64_t>(1, hidden * sizeof(float)), 1,
                              kMostSlotRows);
}

Status HostGeometry::check() const {
  const bool fits = hidden > 0 && slot_rows > 0 && hidden <= kMaxBytes / sizeof(float) &&
                    slot_rows <= kMaxBytes / row_bytes();
  if (fits) return {};
  return {Code::kInvalidArgument,
          fmt::format("shared memory: found {} rows of {} values (expected at least one of each, "
                      "and no more than a terabyte)",
                      slot_rows, hidden)};
}

uint64_t HostGeometry::to_host_bytes() const { return x_offset(0) + kHostSlots * x_slot(*this); }
uint64_t HostGeometry::from_host_bytes() const {
  return kFromHostRows + kHostSlots * round_up(slot_rows * row_bytes() + 2 * kHostGuardBytes);
}
uint64_t HostGeometry::x_offset(uint32_t sequence) const {
  return kToHostRows + sequence % kHostSlots * x_slot(*this);
}
uint64_t HostGeometry::epochs_offset(uint32_t sequence) const {
  return x_offset(sequence) + round_up(slot_rows * row_bytes());
}
uint64_t HostGeometry::y_offset(uint32_t sequence) const {
  return kFromHostRows + kHostGuardBytes +
         sequence % kHostSlots * round_up(slot_rows * row_bytes() + 2 * kHostGuardBytes);
}

Status check_request(const HostRequest& copy, uint32_t sequence, const HostGeometry& geometry) {
  if (copy.sequence == sequence && copy.rows <= geometry.slot_rows &&
      copy.x_offset == geometry.x_offset(sequence) &&
      copy.y_offset == geometry.y_offset(sequence) &&
      (copy.epochs_offset == 0 || copy.epochs_offset == geometry.epochs_offset(sequence)) &&
      copy.reserved == 0) {
    return {};
  }
  return {Code::kDataCorrupt,
          fmt::format("plugin host: found request {} with {} rows (expected request {} with at "
                      "most {})",
                      copy.sequence, copy.rows, sequence, geometry.slot_rows)};
}

Status check_response(const HostResponse& copy, uint32_t sequence) {
  const bool zero =
      copy.reserved0 == 0 && std::all_of(std::begin(copy.reserved), std::end(copy.reserved),
                                         [](uint64_t v) { return v == 0; });
  if (copy.sequence == sequence && copy.code <= CHIMERA_INTERNAL &&
      copy.text_bytes <= kHostTextBytes && (copy.code != CHIMERA_OK || copy.text_bytes == 0) &&
      zero) {
    return {};
  }
  return {
      Code::kDataCorrupt,
      fmt::format("found response {} with code {} and a text of {} bytes (expected response {}, "
                  "codes 0 to {}, at most {} bytes)",
                  copy.sequence, copy.code, copy.text_bytes, sequence,
                  static_cast<int>(CHIMERA_INTERNAL), kHostTextBytes)};
}

AdaptiveSpin::AdaptiveSpin(bool enabled)
    : budget_(enabled ? kMostSpin : kLeastSpin), enabled_(enabled) {}

void AdaptiveSpin::succeeded() {
  budget_ = std::min(budget_ * 2, kMostSpin);
  pause_ = 0;
}
void AdaptiveSpin::failed() {
  budget_ = std::max(budget_ / 2, kLeastSpin);
  pause_ = std::min(2 * pause_ + 1, kLongestPause);
  to_skip_ = pause_;
}

namespace host_layout {

Result<boost::interprocess::mapped_region> map_file(int fd, boost::interprocess::mode_t mode,
                                                    uint64_t bytes) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return errno_status("shared memory", errno);
  if (info.st_size < 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    return Status(Code::kDataCorrupt,
                  fmt::format("shared memory: found {} bytes (expected {})", info.st_size, bytes));
  }
  try {
    // Boost takes a file by its name; a descriptor has one.
    const boost::interprocess::file_mapping file(fmt::format("/proc/self/fd/{}", fd).c_str(), mode);
    return boost::interprocess::mapped_region(file, mode, 0, bytes);
  } catch (const boost::interprocess::interprocess_exception& e) {
    return errno_status("mapping shared memory", static_cast<int>(e.get_native_error()));
  }
}

}  // namespace host_layout
}  // namespace chimera
