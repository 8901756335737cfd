// Which experts `split` takes, as people write it: on the command line and in a YAML map.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "experts/offline/cut.h"

namespace chimera {

/// "2-5,7": numbers from 0 to 65535. invalid_argument names the part that is wrong.
Result<std::vector<int64_t>> parse_slots(std::string_view text);

/// "NAME=2-5,7" for every layer with a router, "NAME=0:1,2;3:4" for single layers. "NAME" alone
/// leaves the slots empty.
Result<SplitModule> parse_split_module(std::string_view text);

/// A YAML map from module to slots:
///
///   legal: 2-5,7          # of every layer with a router; or a list: [2-5, 7]
///   bio:
///     0: [1, 2]           # of layer 0
///     3-5: 4              # of layers 3 to 5
///     all: 6              # of every layer with a router
///
/// All problems are reported at once, as file:line:column. not_found: no such file.
Result<std::vector<SplitModule>> read_split_map(const std::string& path);
Result<std::vector<SplitModule>> parse_split_map(std::string_view yaml, const std::string& label);

}  // namespace chimera
