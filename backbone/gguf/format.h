// Numbers of the GGUF format, for who reads it and who writes it.
//
// Thread safety: constants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr uint32_t kGgufVersion = 3;
/// Of the data of tensors, where a file does not state another.
inline constexpr uint64_t kGgufAlignment = 32;
inline constexpr uint32_t kGgufMaxDimensions = 4;
inline constexpr size_t kGgufMaxKeyBytes = 65535;
/// Of a tensor's name. Some writers use more.
inline constexpr size_t kGgufMaxNameBytes = 64;

}  // namespace chimera
