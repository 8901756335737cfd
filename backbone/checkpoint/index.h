// model.safetensors.index.json: which shard holds which tensor. Internal to Checkpoint.
//
// Thread safety: free function, from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/status.h"

namespace chimera {

/// Tensor name -> shard file name.
using ShardMap = std::map<std::string, std::string, std::less<>>;

/// Parses the text of an index. Refused as data_corrupt: anything but an object with a
/// "weight_map" object of strings, that map or a tensor twice, an empty map, a shard name that is
/// not a plain
/// "*.safetensors" file name. Errors start with `label`.
Result<ShardMap> parse_shard_index(std::string_view text, const std::string& label);

}  // namespace chimera
