// Functions that a model may call, as every API describes them, and which of them it must call.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "clients/gateway/body/members.h"
#include "clients/gateway/dialect/call_rules.h"

namespace chimera::gateway {

/// {"type": "function", "function": {"name", "description", "parameters"}}, as chat templates take
/// it, and "" or how messages call the schema that its arguments must fit.
struct Function {
  Json described;
  std::string strict;
};

/// Takes `name`, `description`, `strict` and the member that is called `parameters` from
/// `function`, which notes what is wrong.
Function read_function(Members& function, const char* parameters);

/// What was read of tools and of their choice, put together. `choice` names the field that chose.
class CallRulesReader {
 public:
  void add(Function function);
  void demand() { rules_.must = true; }
  /// A call of this function, and of no other.
  void demand(std::string name);
  /// There are to be no calls: the model does not see its tools.
  void forbid() { forbidden_ = true; }
  void single() { rules_.parallel = false; }
  /// Notes in `members` when what is demanded is not among the tools.
  CallRules finish(Members& members, const char* choice);

 private:
  CallRules rules_;
  Json list_ = Json::array();
  bool forbidden_ = false;
};

}  // namespace chimera::gateway
