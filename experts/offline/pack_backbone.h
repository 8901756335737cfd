// A checkpoint written again with its weights packed (compute/tensor/weight_format.h), so that a
// daemon maps them and packs nothing.
//
// Thread safety: free functions; two must not write one directory.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "compute/tensor/precision.h"

namespace chimera {

struct PackBackboneOptions {
  std::string from;         // a checkpoint that is not packed
  std::string out;          // a new directory
  PrecisionPlan precision;  // packs at least one class
};

struct PackBackboneReport {
  std::string fingerprint;  // of the source, and so of what was written
  uint64_t packed = 0;      // matrices
  uint64_t kept = 0;        // other tensors
  uint64_t bytes = 0;       // of all of them
};

/// Every matrix of a class with a packed precision becomes what loading with that plan makes of it,
/// bit for bit; a head that is tied to the embedding is written beside it. Everything else stays as
/// the checkpoint shows it. Experts that stand in stacks become tensors of their own. The record
/// (backbone/checkpoint/packed_record.h) names the fingerprint of the source. Holds one layer's
/// packed weights in memory. The directory appears complete or not at all. invalid_argument:
/// nothing to pack; failed_precondition: packed already, or experts in MXFP4 that its packed format
/// does not hold; data_corrupt: the source changed meanwhile.
Result<PackBackboneReport> pack_backbone(const PackBackboneOptions& options);

/// Packs `source` again and compares: that every tensor of `packed`, the configuration, the files
/// beside it and the record are what pack_backbone() makes of it. Writes nothing. data_corrupt
/// names the first difference; failed_precondition: `packed` is not packed.
Result<PackBackboneReport> verify_packed_backbone(const std::string& packed,
                                                  const std::string& source);

}  // namespace chimera
