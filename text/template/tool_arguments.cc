#include "text/template/tool_arguments.h"

#include <functional>
#include <string_view>

#include "text/template/builtins/json.h"

namespace chimera {
namespace {

using jinja::Dict;
using jinja::Sequence;
using jinja::Text;
using jinja::Value;
using Replace = std::function<Value(const Value&)>;

/// `list` with every item replaced; itself when it is no list.
Value each_item(const Value& list, const Replace& replace) {
  const Sequence* sequence = list.sequence();
  if (sequence == nullptr) return list;
  std::vector<Value> items;
  items.reserve(sequence->items.size());
  for (const Value& item : sequence->items) items.push_back(replace(item));
  return Value(
      std::shared_ptr<const Sequence>(jinja::make_sequence(sequence->form, std::move(items))));
}

/// `object` with one member replaced; itself when it has none.
Value member(const Value& object, std::string_view name, const Replace& replace) {
  const Dict* dict = object.dict();
  if (dict == nullptr || dict->find(name) == nullptr) return object;
  auto out = std::make_shared<Dict>();
  for (const auto& [key, value] : dict->items) {
    const bool is_it = key.text() != nullptr && key.text()->str() == name;
    out->set(key, is_it ? replace(value) : value);
  }
  return Value(std::shared_ptr<const Dict>(std::move(out)));
}

/// `messages` with `replace` applied to the arguments of every call.
Value each_argument(const Value& messages, const Replace& replace) {
  const Replace in_function = [&](const Value& function) {
    return member(function, "arguments", replace);
  };
  const Replace in_call = [&](const Value& call) {
    return member(member(call, "function", in_function), "arguments", replace);
  };
  return each_item(messages, [&](const Value& message) {
    const Value with_calls = member(message, "tool_calls",
                                    [&](const Value& calls) { return each_item(calls, in_call); });
    return member(with_calls, "function_call", in_function);
  });
}

/// The object that a string holds; undefined when it holds something else.
Value object_in(const Text& text) {
  if (text.str().find_first_not_of(" \t\r\n") == std::string::npos) {
    return Value(std::make_shared<const Dict>());
  }
  auto value = jinja::parse_json(text.str(), jinja::Origin::kClient);
  return value.ok() && value->dict() != nullptr ? std::move(*value) : Value();
}

}  // namespace

ToolArguments::ToolArguments(const Value& messages) {
  each_argument(messages, [this](const Value& arguments) {
    if (const Text* text = arguments.text()) {
      Value object = object_in(*text);
      if (!object.is_undefined()) {
        encoded_.insert(text);
        objects_.emplace(text, std::move(object));
      }
    }
    return arguments;
  });
}

Value ToolArguments::decoded(const Value& messages) const {
  return each_argument(messages, [this](const Value& arguments) {
    const auto object = objects_.find(arguments.text());
    return object == objects_.end() ? arguments : object->second;
  });
}

}  // namespace chimera
