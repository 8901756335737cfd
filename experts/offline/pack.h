// A module written again with its weights packed (compute/tensor/weight_format.h), so that a load
// reads them and packs nothing.
//
// Thread safety: free function; two must not write one directory.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "compute/tensor/precision.h"

namespace chimera {

struct PackOptions {
  std::string from;                      // a module of kind weights
  std::string out;                       // a new directory
  Precision precision = Precision::kQ8;  // kQ8 or kQ4
  /// A file is full with so many. A load verifies files side by side, each on one CPU, which takes
  /// longer than reading them: files of this size keep all CPUs busy until shortly before the end.
  uint64_t shard_bytes = uint64_t{32} << 20;
};

struct PackReport {
  std::string name, version, digest;  // of the module that was written
  uint64_t packed = 0;                // matrices
  uint64_t kept = 0;                  // other tensors, and matrices that no packed format holds
  uint64_t bytes = 0;                 // of all of them
};

/// Every matrix becomes what loading with that precision makes of it, bit for bit; gate rows,
/// biases and other files stay as they are. The manifest names the precision, and the manifest that
/// it was made from as its parent. What would be refused by a load is refused. Holds the module and
/// its packed weights in memory. The directory appears complete or not at all. invalid_argument:
/// another precision.
Result<PackReport> pack_module(const PackOptions& options);

}  // namespace chimera
