// The shared memory between chimerad and a chimera-plugin-host: two memory files, each written by
// one side only, and in them two single-producer single-consumer rings.
//
//   to the host     written by the daemon, sealed against writes of the host: requests, input rows
//   from the host   written by the host, mapped read-only by the daemon: responses, output rows
//
// Every counter and slot has one writer, there are no locks: a side that dies leaves nothing held.
// Positions are offsets and sequence numbers, never pointers. A descriptor is copied once and the
// copy is checked; nothing is read twice. The daemon takes the host for hostile: whatever it writes
// can spoil the answer to the call in progress and nothing else.
//
// Output rows lie between two guard lines: a plugin that writes past its rows is found out.
//
// Waiting: a short spin that adapts to whether it helps, then a futex (shared memory, so not
// private). A wait never relies on the other side: it has a limit.
//
// Thread safety: one thread at a time per port; HostPort::lose() from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace chimera {

/// Calls under way at a time: one runs while the rows of the next are copied in and those of the
/// one before are copied out. A power of two, as the counters wrap.
inline constexpr uint32_t kHostSlots = 4;
inline constexpr size_t kHostTextBytes = 1024;
inline constexpr uint64_t kHostGuardBytes = 64;

/// Where things lie, from the two numbers that both sides know.
struct HostGeometry {
  uint64_t hidden = 0;     // values of a row
  uint64_t slot_rows = 0;  // rows of one call

  /// Rows per call for rows of this length: 256, or what fits 8 MiB.
  static uint64_t default_slot_rows(uint64_t hidden);
  /// invalid_argument when the sizes are zero or beyond 2^40 bytes.
  Status check() const;
  uint64_t row_bytes() const { return hidden * sizeof(float); }
  uint64_t to_host_bytes() const;
  uint64_t from_host_bytes() const;
  /// Offset of the rows of a call in their file, a multiple of 64.
  uint64_t x_offset(uint32_t sequence) const;
  uint64_t y_offset(uint32_t sequence) const;
  /// Of the epochs of those rows, in the same file as x.
  uint64_t epochs_offset(uint32_t sequence) const;
};

struct HostRequest {
  uint32_t sequence = 0;
  uint32_t layer = 0, expert = 0, rows = 0;
  uint64_t x_offset = 0, y_offset = 0;
  uint64_t epochs_offset = 0;  // 0: the rows are on no table
  uint64_t deadline_ns = 0;    // when nobody wants the rows any more, as steady_ns; 0: never
  uint64_t limit_ns = 0;       // when the plugin's own time is up, as steady_ns
  uint64_t reserved = 0;
};
static_assert(sizeof(HostRequest) == 64);

struct HostResponse {
  uint32_t sequence = 0;
  uint32_t code = 0;        // chimera_status_code
  uint32_t text_bytes = 0;  // of the message in the slot
  uint32_t reserved0 = 0;
  uint64_t forward_ns = 0;  // time inside the backend
  uint64_t reserved[5] = {};
};
static_assert(sizeof(HostResponse) == 64);

/// ok, or data_corrupt: not what the other side may send as number `sequence`.
Status check_request(const HostRequest& copy, uint32_t sequence, const HostGeometry& geometry);
Status check_response(const HostResponse& copy, uint32_t sequence);

/// How long to spin before sleeping: as long as it pays. Where it does not - the other side has no
/// CPU of its own, or takes long - most waits do not spin at all, and now and then one tries. Not
/// thread safe.
class AdaptiveSpin {
 public:
  /// `enabled` false (a single CPU): never spins.
  explicit AdaptiveSpin(bool enabled);
  /// True when ready() became true while spinning.
  template <class Ready>
  bool wait(Ready&& ready);

 private:
  void succeeded();
  void failed();
  std::chrono::nanoseconds budget_;
  const bool enabled_;
  uint32_t pause_ = 0;    // waits without a spin after the next failure
  uint32_t to_skip_ = 0;  // waits left without a spin
};

/// The daemon's end.
class HostPort {
 public:
  /// Makes both memory files (0600, all pages reserved, sealed) and maps them. resource_exhausted
  /// when there is no room.
  static Result<std::unique_ptr<HostPort>> create(const HostGeometry& geometry);
  ~HostPort();

  /// Descriptors to hand to the host; closed by close_files() once they have been.
  int to_host_fd() const;
  int from_host_fd() const;
  void close_files();

  struct Call {
    uint32_t layer = 0, expert = 0;
    uint32_t rows = 0;                       // at most slot_rows
    const float* x = nullptr;                // [rows, hidden]
    const uint64_t* row_epochs = nullptr;    // [rows], or null
    uint64_t deadline_ns = 0, limit_ns = 0;  // as in HostRequest
  };
  /// Copies the rows and hands them over. REQUIRES: in_flight() < kHostSlots.
  void submit(const Call& call);
  uint32_t in_flight() const;

  enum class Wait : uint8_t { kDone, kLate, kLost, kCorrupt };
  struct Answer {
    Status status;             // of the call; its text is the plugin's, made printable
    const float* y = nullptr;  // [rows, hidden], valid until release()
    uint64_t forward_ns = 0;
    bool guards_intact = true;  // false: something was written outside of the rows
  };
  /// Waits for the oldest call under way. kLate at `deadline`; kLost after lose(); kCorrupt when
  /// the host broke the protocol (why: `answer->status`). Only after kDone is the call over.
  Wait take(std::chrono::steady_clock::time_point deadline, Answer* answer);
  /// Gives the slot of the answer back. After kDone, before the next take().
  void release();

  /// Asks the plugin to give up what is under way (chimera.cancel/1).
  void cancel(bool on);
  /// The host is gone: take() returns kLost now and for ever. Any thread.
  void lose();

 private:
  struct Impl;
  explicit HostPort(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The host's end.
class HostServePort {
 public:
  /// Maps the files behind the descriptors, which stay the caller's. data_corrupt when their sizes
  /// are not those of `geometry`.
  static Result<std::unique_ptr<HostServePort>> attach(const HostGeometry& geometry, int to_host_fd,
                                                       int from_host_fd);
  ~HostServePort();

  struct Call {
    HostRequest request;
    const float* x = nullptr;              // [rows, hidden]
    const uint64_t* row_epochs = nullptr;  // [rows], or null
    float* y = nullptr;                    // [rows, hidden], all NaN
  };
  /// The next call, or false after `timeout`. data_corrupt when the daemon broke the protocol.
  Result<bool> next(std::chrono::milliseconds timeout, Call* call);
  /// Ends the call that next() gave.
  void reply(const Status& status, uint64_t forward_ns);
  /// Makes next() return at once. Any thread.
  void stop();
  /// For ExpertContext::cancel.
  const std::atomic<uint32_t>* cancel_flag() const;

 private:
  struct Impl;
  explicit HostServePort(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
