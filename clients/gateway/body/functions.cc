#include "clients/gateway/body/functions.h"

#include <fmt/format.h>

#include <algorithm>

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

Json read_function(Members& function, const char* parameters) {
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
  if (strict) {
    function.fail(unsupported(function.path_of("strict"), "leave it out, and check the arguments"));
  }
  return {{"type", "function"}, {"function", std::move(out)}};
}

}  // namespace chimera::gateway
