#include "clients/gateway/openai/tools.h"

#include <fmt/format.h>

#include <variant>

#include "clients/gateway/body/functions.h"

namespace chimera::gateway::openai {
namespace {

/// One tool as templates take it.
std::variant<Function, ApiError> read_tool(const Json& tool, ToolShape shape,
                                           const std::string& where) {
  if (!tool.is_object()) {
    return bad_field(where, fmt::format("{} (expected an object)", shown(tool)));
  }
  Members outer(tool, where + ".");
  const std::string type = outer.text("type").value_or("");
  if (type != "function") {
    outer.fail(type.empty() ? bad_field(where + ".type", "missing (expected function)")
                            : unsupported(fmt::format("{}.type: {}", where, shown(type)),
                                          "function is there"));
  }
  if (shape == ToolShape::kFlat) {
    Function out = read_function(outer, "parameters");
    if (auto problem = outer.finish()) return *problem;
    return out;
  }
  const Json* described = outer.take("function");
  if (outer.ok() && (described == nullptr || !described->is_object())) {
    outer.fail(bad_field(where + ".function", "missing (expected an object)"));
  }
  if (auto problem = outer.finish()) return *problem;
  Members function(*described, where + ".function.");
  Function out = read_function(function, "parameters");
  if (auto problem = function.finish()) return *problem;
  return out;
}

/// {"type": "function", "function": {"name"}} or {"type": "function", "name"}
void read_named(Members& members, const Json& choice, ToolShape shape, CallRulesReader& rules) {
  Members outer(choice, "tool_choice.");
  const std::string type = outer.text("type").value_or("");
  if (type != "function") {
    return members.fail(unsupported(fmt::format("tool_choice.type: {}", shown(type)),
                                    "auto, none, required and a function are there"));
  }
  const Json* named = shape == ToolShape::kFlat ? &choice : outer.take("function");
  const std::string* name = named == nullptr ? nullptr : (*named)["name"].string();
  outer.take("name");
  if (auto problem = outer.finish()) return members.fail(std::move(*problem));
  if (name == nullptr) {
    return members.fail(
        bad_field(shape == ToolShape::kFlat ? "tool_choice.name" : "tool_choice.function.name",
                  "missing (expected the name of a function)"));
  }
  rules.demand(*name);
}

void read_choice(Members& members, ToolShape shape, CallRulesReader& rules) {
  const Json* choice = members.take("tool_choice");
  if (choice == nullptr || *choice == Json("auto")) return;
  if (*choice == Json("none")) return rules.forbid();
  if (*choice == Json("required")) return rules.demand();
  if (choice->is_object()) return read_named(members, *choice, shape, rules);
  members.bad("tool_choice", *choice, "auto, none, required or a function");
}

}  // namespace

CallRules take_tools(Members& members, ToolShape shape) {
  CallRulesReader rules;
  bool parallel = true;
  members.take("parallel_tool_calls", parallel);
  if (!parallel) rules.single();
  read_choice(members, shape, rules);
  const Json* tools = members.take("tools");
  if (tools != nullptr && !tools->is_array()) {
    members.bad("tools", *tools, "an array");
    return {};
  }
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    auto tool = read_tool(tools->at(i), shape, fmt::format("tools[{}]", i));
    if (auto* error = std::get_if<ApiError>(&tool)) {
      members.fail(std::move(*error));
      return {};
    }
    rules.add(std::get<Function>(std::move(tool)));
  }
  return rules.finish(members, "tool_choice");
}

}  // namespace chimera::gateway::openai
