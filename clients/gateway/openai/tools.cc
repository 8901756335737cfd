#include "clients/gateway/openai/tools.h"

#include <fmt/format.h>

#include <variant>

#include "clients/gateway/body/functions.h"

namespace chimera::gateway::openai {
namespace {

/// One tool as templates take it.
std::variant<Json, ApiError> read_tool(const Json& tool, const std::string& where) {
  if (!tool.is_object()) {
    return bad_field(where, fmt::format("{} (expected an object)", shown(tool)));
  }
  Members outer(tool, where + ".");
  const std::string type = outer.text("type").value_or("");
  const Json* described = outer.take("function");
  if (type != "function") {
    outer.fail(type.empty() ? bad_field(where + ".type", "missing (expected function)")
                            : unsupported(fmt::format("{}.type: {}", where, shown(type)),
                                          "function is there"));
  } else if (described == nullptr || !described->is_object()) {
    outer.fail(bad_field(where + ".function", "missing (expected an object)"));
  }
  if (auto problem = outer.finish()) return *problem;
  Members function(*described, where + ".function.");
  Json out = read_function(function, "parameters");
  if (auto problem = function.finish()) return *problem;
  return out;
}

/// Whether the model is to know its tools.
bool wanted(Members& members, const Json* choice) {
  if (choice == nullptr || *choice == Json("auto")) return true;
  if (*choice == Json("none")) return false;
  if (*choice == Json("required") || choice->is_object()) {
    members.fail(unsupported("tool_choice: a call that must be",
                             "auto and none are there; say in a message what is expected"));
  } else {
    members.bad("tool_choice", *choice, "auto or none");
  }
  return false;
}

}  // namespace

Tools take_tools(Members& members) {
  Tools out;
  members.take("parallel_tool_calls", out.parallel);
  const Json* tools = members.take("tools");
  const bool want = wanted(members, members.take("tool_choice"));
  if (tools == nullptr) return out;
  if (!tools->is_array()) {
    members.bad("tools", *tools, "an array");
    return out;
  }
  Json list = Json::array();
  for (size_t i = 0; i < tools->size(); ++i) {
    auto tool = read_tool(tools->at(i), fmt::format("tools[{}]", i));
    if (auto* error = std::get_if<ApiError>(&tool)) {
      members.fail(std::move(*error));
      return out;
    }
    list.push_back(std::get<Json>(std::move(tool)));
  }
  if (want && !list.empty()) out.list = std::make_shared<const Json>(std::move(list));
  return out;
}

}  // namespace chimera::gateway::openai
