// The part of config.json that compressed-tensors writes. Private to this folder.
//
// Thread safety: values and a free function.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backbone/checkpoint/quantized/scheme.h"
#include "base/status.h"

namespace chimera {

/// How the tensors of all matrices are laid out: "format".
enum class CompressedForm : uint8_t { kFp8, kInt8, kPacked, kNvfp4 };

/// The settings of one group.
struct CompressedSettings {
  int64_t bits = 0;
  std::string strategy;  // tensor, channel, group, block, tensor_group
  int64_t group = 0;     // inputs that share a scale; 0: all
  BlockShape block;
  bool symmetric = true;

  /// For people.
  std::string text() const;
  /// Which FP8 weights share a scale.
  BlockShape fp8_block() const;
};

struct CompressedConfig {
  CompressedForm form = CompressedForm::kFp8;
  std::vector<CompressedSettings> groups;  // at least one; FP8: all with the same blocks
};

/// Every key that counts; an option that is not supported is refused by name.
Result<CompressedConfig> read_compressed_config(const QuantSection& section);

}  // namespace chimera
