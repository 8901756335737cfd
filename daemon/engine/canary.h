// Canary: a second table beside the current one, on which a part of the new sequences begins, and
// what became of them.
//
// Thread safety: values and free functions.
#pragma once

#include <cstdint>
#include <string_view>

namespace chimera {

/// Where a request falls in [0, 2^64), by who sent it and its id: those of one client that are sent
/// again fall where they fell. FNV-1a over both, mixed by the finaliser of splitmix64, so that ids
/// that count up spread evenly.
uint64_t canary_lot(std::string_view client, std::string_view id);

/// Whether the lot is among the first `fraction` of all, from 0 for none to 1 for all.
inline bool drawn_for_canary(uint64_t lot, double fraction) {
  return static_cast<double>(lot >> 11) * 0x1p-53 < fraction;
}

/// What was seen of sequences that ended on one of the two tables.
struct CanarySide {
  uint64_t requests = 0;  // that ended, failed ones among them
  uint64_t failed = 0;    // through no fault of their clients
  uint64_t tokens = 0;    // generated after the first of each
  double decode_ms = 0.0;
  uint64_t scored_bytes = 0;  // of texts
  double nats = 0.0;          // of these
};

/// Of the sequences that ended since the canary began, those that had begun before it on what was
/// current then among them; those of older epochs count for neither side.
struct CanaryCounts {
  uint64_t epoch = 0;  // of the canary; 0: there is none
  uint64_t basis = 0;  // of what was current when it began
  CanarySide canary, current;
};

}  // namespace chimera
