// Which calls of tools a request allows, and demands.
//
// Thread safety: values.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/json/json.h"

namespace chimera::gateway {

struct CallRules {
  std::shared_ptr<const Json> tools{};  // as templates take them, an array; null: none
  /// Of each tool: how messages call the schema that its arguments must fit, "" where they need
  /// not.
  std::vector<std::string> strict{};
  bool must = false;     // at least one call, and nothing but calls
  std::string only{};    // of this tool; "": of any
  bool parallel = true;  // false: the first call of an answer is the only one

  bool any() const { return tools != nullptr && !tools->empty(); }
  /// Whether there is something that a model does not do by itself.
  bool bind() const {
    return must || std::any_of(strict.begin(), strict.end(),
                               [](const std::string& name) { return !name.empty(); });
  }
};

}  // namespace chimera::gateway
