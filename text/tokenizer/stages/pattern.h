// The "pattern" member that Split and Replace share: {"String": …} or {"Regex": …}.
//
// Thread safety: free function, from any thread.
#pragma once

#include "text/tokenizer/model/json.h"
#include "text/tokenizer/regex/regex.h"

namespace chimera::tokenizer {

/// Compiles the "pattern" member of `fields`.
Result<Regex> read_pattern(Fields& fields);

}  // namespace chimera::tokenizer
