// One metadata value of a GGUF file. Internal to GgufFile.
//
// Thread safety: free function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backbone/gguf/cursor.h"
#include "backbone/gguf/gguf_file.h"

namespace chimera {

/// Reads a value of the type with the format's number `type` (0 to 12). What is wrong with it, as
/// "is a list of the type 9 (expected …)", else nothing; where the bytes end within it,
/// cursor.good() says so and `value` means nothing. A list takes no memory before the bytes that
/// are left have been found to have room for it.
std::optional<std::string> read_gguf_value(GgufCursor& cursor, uint32_t type, GgufValue& value);

}  // namespace chimera
