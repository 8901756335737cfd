#include "text/template/builtins/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/builtins/format.h"
#include "text/template/builtins/operators.h"
#include "text/template/builtins/string_methods.h"

namespace chimera::jinja {
namespace {

constexpr std::array<std::string_view, 5> kDictMethods = {"get", "items", "keys", "values", "copy"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault",
                                                          "update"};
constexpr std::array<std::string_view, 3> kListMethods = {"count", "index", "copy"};
constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear",  "extend",  "insert",
                                                          "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 2> kTupleMethods = {"count", "index"};

template <size_t N>
bool in(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value refuse_change(Runtime& run, const Value& self, std::string_view name) {
  return run.fail(
      fmt::format("{}.{} is not allowed: templates cannot change values (expected a new "
                  "value, or an attribute of a namespace)",
                  type_name(self), name));
}

Value dict_view(Runtime& run, const Dict& dict, std::string_view name) {
  std::vector<Value> items;
  if (!run.step(dict.items.size())) return {};
  for (const auto& [key, value] : dict.items) {
    if (name == "items") {
      items.push_back(run.tuple({key, value}));
    } else {
      items.push_back(name == "keys" ? key : value);
    }
  }
  return run.make(name == "items"  ? Sequence::Form::kItems
                  : name == "keys" ? Sequence::Form::kKeys
                                   : Sequence::Form::kValues,
                  std::move(items));
}

Value dict_method(Runtime& run, const Value& self, std::string_view name, const CallArgs& args) {
  if (in(kDictChanges, name)) return refuse_change(run, self, name);
  const Dict& dict = *self.dict();
  if (name == "get") {
    const Bound bound(run, "get", args, {"key", "default"}, 1);
    if (!bound.ok() || !run.step(weight(bound[0]))) return {};
    const Value* held = dict.find(bound[0]);
    if (held != nullptr) return *held;
    return bound.has(1) ? bound[1] : Value(None{});
  }
  const Bound bound(run, name, args, {});
  return name == "copy" ? self : dict_view(run, dict, name);
}

Value sequence_method(Runtime& run, const Value& self, std::string_view name,
                      const CallArgs& args) {
  const Sequence& sequence = *self.sequence();
  if (sequence.form == Sequence::Form::kList && in(kListChanges, name)) {
    return refuse_change(run, self, name);
  }
  if (name == "copy") return self;
  const Bound bound(run, name, args, {"value"}, 1);
  int64_t count = 0;
  for (size_t i = 0; i < sequence.items.size() && bound.ok(); ++i) {
    if (!run.equal(sequence.items[i], bound[0])) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") return run.fail("index: the value is not in the list");
  return Value(count);
}

Value loop_method(Runtime& run, const Loop& loop, std::string_view name, const CallArgs& args) {
  if (!args.named.empty()) return run.fail("loop." + std::string(name) + " takes no names");
  if (name == "cycle") {
    if (args.positional.empty()) return run.fail("loop.cycle: nothing to cycle through");
    return args.positional[loop.index % args.positional.size()];
  }
  const bool same = loop.changed && loop.changed->size() == args.positional.size() &&
                    std::equal(loop.changed->begin(), loop.changed->end(), args.positional.begin(),
                               [&](const Value& a, const Value& b) { return run.equal(a, b); });
  if (!same) loop.changed = args.positional;
  return Value(!same);
}

Value cycler_method(const Function& cycler, std::string_view name) {
  const auto& items = cycler.self.sequence()->items;
  if (name == "reset") {
    cycler.uses = 0;
    return Value(None{});
  }
  Value out = items[cycler.uses % items.size()];
  cycler.uses = (cycler.uses + 1) % items.size();
  return out;
}

}  // namespace

bool changes(const Value& self, std::string_view name) {
  if (self.dict() != nullptr) return in(kDictChanges, name);
  const Sequence* sequence = self.sequence();
  return sequence != nullptr && sequence->form == Sequence::Form::kList && in(kListChanges, name);
}

bool has_method(const Value& self, std::string_view name) {
  if (self.text() != nullptr) return has_string_method(name);
  if (self.dict() != nullptr) return in(kDictMethods, name) || in(kDictChanges, name);
  const Sequence* sequence = self.sequence();
  if (sequence == nullptr) return false;
  if (sequence->form == Sequence::Form::kList)
    return in(kListMethods, name) || in(kListChanges, name);
  const bool counts =
      sequence->form == Sequence::Form::kTuple || sequence->form == Sequence::Form::kRange;
  return counts && in(kTupleMethods, name);
}

Value call_method(Runtime& run, const Value& self, std::string_view name, const CallArgs& args) {
  if (self.text() != nullptr) return call_string_method(run, *self.text(), name, args);
  if (self.dict() != nullptr) return dict_method(run, self, name, args);
  if (self.sequence() != nullptr) return sequence_method(run, self, name, args);
  if (self.loop() != nullptr) return loop_method(run, *self.loop(), name, args);
  if (const Function* function = self.function()) return cycler_method(*function, name);
  return run.fail(fmt::format("{} has no method {}", type_name(self), name));
}

}  // namespace chimera::jinja
