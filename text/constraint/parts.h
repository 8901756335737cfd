// Constraints put together from parts that follow one another: words, marks, schemas, expressions,
// alternatives. What docs/constraints.md lists; what is wrong is told by its place, all at once.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "text/constraint/network.h"
#include "text/constraint/token_table.h"

namespace chimera::constraint {

/// Bytes of all parts as JSON; the same schema may be among them several times.
inline constexpr size_t kMaxPartsBytes = size_t{1} << 20;
/// Texts that {"without"} takes, and bytes of each.
inline constexpr size_t kMaxWithout = 8, kMaxWithoutBytes = 64;

/// The network of `parts`, a list. Special tokens of `tokens` are what marks are written with.
/// `what` begins the messages.
Result<Network> parts_network(const Json& parts, const TokenTable& tokens, std::string_view what);

/// Any text in which none of `marks` is found, then `next`. REQUIRES: valid UTF-8, not empty.
NodeId words_without(NetworkBuilder& builder, const std::vector<std::string>& marks, NodeId next);

}  // namespace chimera::constraint
