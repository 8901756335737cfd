// A checkpoint written again in another format or stored type.
//
// Thread safety: free function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/enum_names.h"
#include "base/status.h"
#include "experts/offline/cut.h"

namespace chimera {

/// What the matrices of a converted checkpoint are stored as.
enum class StoredType : uint8_t { kF32, kF16, kBF16 };
inline constexpr auto kStoredTypeNames = enum_names<StoredType>("f32", "f16", "bf16");

struct ConvertOptions {
  std::string from;  // a checkpoint's directory, or a GGUF file
  std::string out;   // a new directory
  /// Of all numbers. Without it what is in blocks becomes BF16 and everything else stays.
  std::optional<StoredType> type;
  uint64_t shard_bytes = SplitOptions{}.shard_bytes;
};

struct ConvertReport {
  uint64_t tensors = 0;
  uint64_t bytes = 0;
};

/// Writes a Hugging Face directory: safetensors, config.json and the tokenizer's files. What is
/// stored so already stays bit for bit; F16 and BF16 are rounded to nearest even. Not more than one
/// shard is in memory at a time. The directory appears complete or not at all.
Result<ConvertReport> convert_checkpoint(const ConvertOptions& options);

}  // namespace chimera
