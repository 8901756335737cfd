// Tests: `value is name(…)`.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/builtins/filters.h"
#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"

namespace chimera::jinja {
namespace {

/// A test without arguments.
struct Predicate {
  std::string_view name;
  bool (*holds)(Runtime& run, const Value& value);
};

bool is_iterable(Runtime&, const Value& value) {
  return value.is_undefined() || value.text() != nullptr || value.sequence() != nullptr ||
         value.dict() != nullptr || value.loop() != nullptr;
}

bool is_sequence(Runtime&, const Value& value) {
  return value.is_undefined() || value.text() != nullptr || value.dict() != nullptr ||
         value.indexed() != nullptr;
}

bool is_divisible(Runtime& run, const Value& value, const Value& by) {
  const Value remainder = binary(run, Op::kModulo, value, by);
  return run.ok() && run.equal(remainder, Value(int64_t{0}));
}

constexpr std::array<Predicate, 21> kPredicates = {{
    {"boolean", [](Runtime&, const Value& v) { return v.boolean() != nullptr; }},
    {"callable",
     [](Runtime&, const Value& v) {
       const Function* function = v.function();
       return v.is_undefined() || v.loop() != nullptr ||
              (function != nullptr && function->type != Function::Type::kCycler);
     }},
    {"defined", [](Runtime&, const Value& v) { return !v.is_undefined(); }},
    {"escaped", [](Runtime&, const Value& v) { return v.text() != nullptr && v.text()->markup; }},
    {"even", [](Runtime& run, const Value& v) { return is_divisible(run, v, Value(int64_t{2})); }},
    {"false", [](Runtime&, const Value& v) { return v.boolean() != nullptr && !*v.boolean(); }},
    {"filter",
     [](Runtime& run, const Value& v) { return has_filter(run.need_text(v, "filter").str()); }},
    {"float", [](Runtime&, const Value& v) { return v.real() != nullptr; }},
    {"integer",
     [](Runtime&, const Value& v) {
       return v.boolean() == nullptr && (v.integer().has_value() || v.big() != nullptr);
     }},
    {"iterable", is_iterable},
    {"lower", [](Runtime& run, const Value& v) { return has_case(run.text(v), false); }},
    {"mapping",
     [](Runtime& run, const Value& v) { return !run.object_needed(v) && v.dict() != nullptr; }},
    {"none", [](Runtime&, const Value& v) { return v.is_none(); }},
    {"number", [](Runtime&, const Value& v) { return v.is_number(); }},
    {"odd",
     [](Runtime& run, const Value& v) {
       const Value remainder = binary(run, Op::kModulo, v, Value(int64_t{2}));
       return run.ok() && run.equal(remainder, Value(int64_t{1}));
     }},
    {"sequence", is_sequence},
    {"string", [](Runtime&, const Value& v) { return v.text() != nullptr; }},
    {"test", [](Runtime& run, const Value& v) { return has_test(run.need_text(v, "test").str()); }},
    {"true", [](Runtime&, const Value& v) { return v.boolean() != nullptr && *v.boolean(); }},
    {"undefined", [](Runtime&, const Value& v) { return v.is_undefined(); }},
    {"upper", [](Runtime& run, const Value& v) { return has_case(run.text(v), true); }},
}};

/// Python's `is`: small values are the same object when they are equal.
bool same(Runtime& run, const Value& a, const Value& b) {
  if (a.data().index() != b.data().index()) return false;
  if (a.sequence() != nullptr) return a.sequence() == b.sequence();
  if (a.dict() != nullptr) return a.dict() == b.dict();
  if (a.is_undefined()) return false;
  return run.equal(a, b);
}

/// A test with one argument. `divisibleby` and `sameas` are no comparisons and told by name.
struct Relation {
  std::string_view name;
  Op op;
};
constexpr std::array<Relation, 18> kRelations = {{{"==", Op::kEqual},
                                                  {"eq", Op::kEqual},
                                                  {"equalto", Op::kEqual},
                                                  {"!=", Op::kNotEqual},
                                                  {"ne", Op::kNotEqual},
                                                  {">", Op::kGreater},
                                                  {"gt", Op::kGreater},
                                                  {"greaterthan", Op::kGreater},
                                                  {">=", Op::kGreaterEqual},
                                                  {"ge", Op::kGreaterEqual},
                                                  {"<", Op::kLess},
                                                  {"lt", Op::kLess},
                                                  {"lessthan", Op::kLess},
                                                  {"<=", Op::kLessEqual},
                                                  {"le", Op::kLessEqual},
                                                  {"in", Op::kIn},
                                                  {"divisibleby", Op::kEqual},
                                                  {"sameas", Op::kEqual}}};

template <class Table>
auto find(const Table& table, std::string_view name) -> decltype(&table[0]) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const auto& e) { return e.name == name; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace

bool has_test(std::string_view name) {
  return find(kPredicates, name) != nullptr || find(kRelations, name) != nullptr;
}

bool apply_test(Runtime& run, std::string_view name, const Value& subject, const CallArgs& args) {
  if (!run.step()) return false;
  const Predicate* predicate = find(kPredicates, name);
  if (predicate != nullptr) {
    const Bound none(run, name, args, {});
    return run.ok() && predicate->holds(run, subject);
  }
  const Relation* relation = find(kRelations, name);
  if (relation == nullptr) {
    run.fail(fmt::format("no test named '{}'", name));
    return false;
  }
  const Bound bound(run, name, args, {"other"}, 1);
  if (!run.ok()) return false;
  if (name == "divisibleby") return is_divisible(run, subject, bound[0]);
  if (name == "sameas") return same(run, subject, bound[0]);
  return compare(run, relation->op, subject, bound[0]);
}

}  // namespace chimera::jinja
