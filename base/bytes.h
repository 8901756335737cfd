// Sizes in memory as people write and read them: "512 MiB", "1.5 GiB".
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

/// "17 bytes", "1.5 MiB", "13.8 GiB": three digits are enough to compare by.
std::string bytes_text(uint64_t bytes);

/// What parse_bytes() takes, for messages.
inline constexpr std::string_view kBytesExpected = "a size such as 512MiB or 4GiB";

/// A whole number of KiB, MiB, GiB or TiB (powers of 1024), with or without a space before the
/// unit; nothing for anything else, or for more than 2^62 bytes.
std::optional<uint64_t> parse_bytes(std::string_view text);

}  // namespace chimera
