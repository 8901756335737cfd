// JSON Schema (draft 2020-12, and what draft 7 calls the same) as a network: the subset that
// docs/constraints.md lists. What a schema says beyond it is refused by its name and path, all of
// it at once; nothing is ignored but annotations. Where the network has less than the schema allows
// (the order of members, members that the schema does not name), that page says so; it never has
// more: every text of the network is valid.
//
// Thread safety: pure function.
#pragma once

#include <string_view>

#include "base/json/json.h"
#include "text/constraint/json_grammar.h"
#include "text/constraint/network.h"

namespace chimera::constraint {

/// Of the schema `schema`. `what` begins the messages.
Result<Network> schema_network(const Json& schema, std::string_view what);
/// The same as a rule of a network in the making, whose grammar is `grammar`.
Result<RuleId> schema_rule(const Json& schema, std::string_view what, NetworkBuilder& builder,
                           JsonGrammar& grammar);
/// Of any JSON object.
Result<Network> object_network(std::string_view what);

}  // namespace chimera::constraint
