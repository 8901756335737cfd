// Members and subscripts of values.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"
#include "text/template/evaluator.h"

namespace chimera::jinja {
namespace {

Value no_attribute(const Value& a, std::string_view name) {
  const std::string owner = a.is_none() ? "None" : type_name(a) + " object";
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", owner, name));
}

Value method(const Value& self, std::string_view name) {
  auto out = std::make_shared<Function>();
  out->type = Function::Type::kMethod;
  out->name = std::string(name);
  out->self = self;
  return Value(std::shared_ptr<const Function>(std::move(out)));
}

Value loop_attribute(const Value& self, const Loop& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(size - index);
  if (name == "revindex0") return Value(size - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == size);
  if (name == "length") return Value(size);
  if (name == "depth") return Value(loop.depth);
  if (name == "depth0") return Value(loop.depth - 1);
  if (name == "previtem") {
    return index > 0 ? loop.items[loop.index - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < size ? loop.items[loop.index + 1]
                            : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") return method(self, name);
  return no_attribute(self, name);
}

Value function_attribute(const Value& self, const Function& function, const std::string& name) {
  if (function.type == Function::Type::kCycler) {
    const auto& items = function.self.sequence()->items;
    if (name == "next" || name == "reset") return method(self, name);
    if (name == "current") return items[function.uses % items.size()];
  }
  if (function.type == Function::Type::kMacro && name == "name") {
    return Value::string(function.name);
  }
  return no_attribute(self, name);
}

/// A method or attribute of the object itself; undefined with a null problem when there is none.
Value own_attribute(Runtime& run, const Value& a, const std::string& name) {
  if (changes(a, name)) {
    return Value::undefined(
        fmt::format("access to '{}' of a {} is not allowed", name, type_name(a)));
  }
  if (has_method(a, name)) return run.allocate(sizeof(Function)) ? method(a, name) : Value();
  if (const Namespace* space = a.name_space()) {
    if (!run.step(space->attributes.size() / 16)) return {};
    const Value* held = space->find(name);
    if (held != nullptr) return *held;
  }
  if (const Loop* loop = a.loop()) return loop_attribute(a, *loop, name);
  if (const Function* function = a.function()) return function_attribute(a, *function, name);
  if (const Sequence* sequence = a.sequence(); sequence != nullptr && sequence->is_group) {
    if (name == "grouper") return sequence->items[0];
    if (name == "list") return sequence->items[1];
  }
  return {};
}

bool is_missing(const Value& value) {
  const auto* undefined = std::get_if<Undefined>(&value.data());
  return undefined != nullptr && undefined->problem == nullptr;
}

/// The item at a position; undefined with a null problem when there is none.
Value at_position(Runtime& run, const Value& a, int64_t index) {
  const int64_t size = length(run, a);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return {};
  if (const Sequence* sequence = a.indexed()) return sequence->items[static_cast<size_t>(index)];
  return slice(run, a, Value(index), Value(index + 1), Value(None{}));
}

}  // namespace

Value attribute(Runtime& run, const Value& a, const std::string& name) {
  if (a.is_undefined()) return run.mismatch("." + name, a, "");
  Value own = own_attribute(run, a, name);
  if (!is_missing(own)) return own;
  if (run.object_needed(a)) return {};
  if (const Dict* dict = a.dict()) {
    if (const Value* held = dict->find(std::string_view(name))) return *held;
  }
  return no_attribute(a, name);
}

Value item(Runtime& run, const Value& a, const Value& key) {
  if (a.is_undefined()) return run.mismatch("subscript", a, "");
  if (run.object_needed(a)) return {};
  if (const Dict* dict = a.dict()) {
    if (!run.step(weight(key))) return {};
    if (const Value* held = dict->find(key)) return *held;
  } else if (key.integer() && (a.text() != nullptr || a.indexed() != nullptr)) {
    Value held = at_position(run, a, *key.integer());
    if (!is_missing(held)) return held;
  }
  const Text* name = key.text();
  if (name == nullptr) {
    return Value::undefined(
        fmt::format("'{} object' has no element {}", type_name(a), to_repr(key).str()));
  }
  Value own = own_attribute(run, a, name->str());
  return is_missing(own) ? no_attribute(a, name->str()) : own;
}

Value attribute_path(Runtime& run, const Value& a, const Value& path, const Value& fallback) {
  const auto or_fallback = [&](const Value& found) {
    const bool replaced = found.is_undefined() && !fallback.is_undefined() && !fallback.is_none();
    return replaced ? fallback : found;
  };
  if (path.integer()) return or_fallback(item(run, a, path));
  const std::string& names = run.need_text(path, "attribute").str();
  Value held = a;
  size_t begin = 0;
  while (run.step()) {
    const size_t end = std::min(names.find('.', begin), names.size());
    const std::string part = names.substr(begin, end - begin);
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && parsed.ec == std::errc() &&
                          parsed.ptr == part.data() + part.size();
    held = or_fallback(item(run, held, is_index ? Value(index) : Value::string(part)));
    if (end == names.size()) break;
    begin = end + 1;
  }
  return held;
}

}  // namespace chimera::jinja
