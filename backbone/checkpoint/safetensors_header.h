// The JSON header of a safetensors file: strict parsing and layout check. Internal to the reader.
//
// The grammar is fixed (an object of tensor entries, each an object of three known keys), so the
// parser has no recursion and no generic values: nesting that the format does not have is refused
// where it starts. Nothing is believed: every number is checked against the bytes there are before
// anything is sized by it, and memory stays below four times the header.
//
// Thread safety: free function, from any thread; what it gives is read by any number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// More dimensions are refused, by the reader and by the writer.
inline constexpr size_t kMaxSafetensorsRank = 8;

struct SafetensorsHeader {
  std::vector<TensorView> tensors;  // in data order
  std::vector<uint32_t> by_name;    // indices into `tensors`, in name order
  std::map<std::string, std::string> metadata;
};

/// Parses `text`. The views point into `data` (the bytes after the header, which are not read)
/// and share `owner`. Errors start with `label`.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text,
                                                   std::span<const std::byte> data,
                                                   const std::shared_ptr<const void>& owner,
                                                   const std::string& label);

}  // namespace chimera
