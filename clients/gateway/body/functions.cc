#include "clients/gateway/body/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/quote.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxName = 64;  // as the API of OpenAI says

bool is_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
         });
}

}  // namespace

Function read_function(Members& function, const char* parameters) {
  const std::string name = function.text("name").value_or("");
  if (!is_name(name)) {
    function.bad("name", name, fmt::format("1 to {} of a-z A-Z 0-9 _ - .", kMaxName));
  }
  Json out = {{"name", name}};
  if (const auto description = function.text("description")) out["description"] = *description;
  const Json* schema = function.take(parameters);
  if (schema != nullptr && !schema->is_object()) {
    function.bad(parameters, *schema, "a JSON Schema");
  }
  // Templates print what there is; without parameters a function takes an object without members.
  out["parameters"] =
      schema != nullptr ? *schema : Json{{"type", "object"}, {"properties", Json::object()}};
  bool strict = false;
  function.take("strict", strict);
  return {.described = {{"type", "function"}, {"function", std::move(out)}},
          .strict = strict ? function.path_of(parameters) : ""};
}

void CallRulesReader::add(Function function) {
  list_.push_back(std::move(function.described));
  rules_.strict.push_back(std::move(function.strict));
}

void CallRulesReader::demand(std::string name) {
  rules_.must = true;
  rules_.only = std::move(name);
}

CallRules CallRulesReader::finish(Members& members, const char* choice) {
  const bool there =
      rules_.only.empty() || std::any_of(list_.begin(), list_.end(), [&](const Json& tool) {
        return tool["function"]["name"] == Json(rules_.only);
      });
  if (rules_.must && (list_.empty() || !there)) {
    members.fail(bad_field(choice, fmt::format("{} (expected one of tools)",
                                               there ? "a call" : quote(rules_.only, 80))));
  }
  if (forbidden_ || list_.empty()) return {.parallel = rules_.parallel};
  rules_.tools = std::make_shared<const Json>(std::move(list_));
  return std::move(rules_);
}

}  // namespace chimera::gateway
