// Text as error messages quote it.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace chimera {

/// `text` in double quotes for an error message: control bytes escaped, long text shortened.
std::string quote_bytes(std::string_view text);

}  // namespace chimera
