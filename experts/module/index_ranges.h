// Numbers of layers or expert slots as people write them: "2-5,7".
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

inline constexpr int64_t kMaxIndex = 65535;  // above any released model

/// Inclusive.
using IndexRanges = std::vector<std::pair<int64_t, int64_t>>;

/// Numbers from 0 to kMaxIndex and ranges LOW-HIGH, between commas that blanks may follow.
/// invalid_argument names the part that is wrong.
Result<IndexRanges> parse_index_ranges(std::string_view text);

}  // namespace chimera
