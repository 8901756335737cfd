// packed.json: what a checkpoint whose weights are stored packed says of the one that it was packed
// from, beside its config.json,
//
//   {"chimera": "packed-backbone/1",
//    "source": "sha256:…", "content": "sha256:…",
//    "precision": {"experts": "q4", "attention": "q8", "head": "q8"}}
//
// `source` is the fingerprint of the checkpoint that it was packed from, and goes for this one as
// well: the modules of one belong to the other, as the bits that run are the same. It is the word
// of who packed, as a module's fingerprint is that of who wrote its module.yaml; who has the source
// can prove it (`chimera backbone verify`). `content` ties the word to the tensors: it is what the
// fingerprint of this checkpoint would be without a source, which whoever opens it computes again.
//
// Thread safety: values and free functions.
#pragma once

#include <optional>
#include <string>

#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/precision.h"

namespace chimera {

inline constexpr const char* kPackedRecordName = "packed.json";

struct PackedRecord {
  std::string source;       // "sha256:…"
  std::string content;      // "sha256:…"
  PrecisionPlan precision;  // that it was packed for
};

/// Of the checkpoint in `dir`; nothing when it has none. data_corrupt: it is none, or one of a
/// precision that packs nothing.
Result<std::optional<PackedRecord>> read_packed_record(const std::string& dir, Env& env);
std::string packed_record_text(const PackedRecord& record);

}  // namespace chimera
