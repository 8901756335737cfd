#include "text/constraint/json_schema.h"

#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/fields/problems.h"
#include "base/quote.h"
#include "text/constraint/json_grammar.h"
#include "text/constraint/pattern.h"
#include "text/constraint/schema_reference.h"
#include "text/constraint/schema_types.h"

namespace chimera::constraint {
namespace {

constexpr size_t kMaxProblems = 8;
/// Alternatives of which each is compared with each.
constexpr size_t kMaxOneOf = 100;
/// The names of members are written out twice, and other_name() goes as deep as they are long.
constexpr size_t kMaxNameBytes = 256;

class SchemaCompiler {
 public:
  SchemaCompiler(const Json& schema, std::string_view what, NetworkBuilder& builder,
                 JsonGrammar& grammar)
      : schema_(schema),
        what_(what),
        builder_(builder),
        grammar_(grammar),
        problems_({}, kMaxProblems) {}

  Result<RuleId> run() {
    const RuleId root = rule_of(schema_, what_);
    while (!queue_.empty() && !builder_.full()) {
      const Todo todo = queue_.front();
      queue_.pop_front();
      builder_.define(todo.rule, body(*todo.schema, todo.path));
    }
    if (!problems_.empty())
      return problems_.status("docs/constraints.md lists what schemas may say");
    return root;
  }

 private:
  struct Todo {
    const Json* schema;
    std::string path;
    RuleId rule;
  };

  void fail(const std::string& path, const std::string& problem) {
    problems_.add({}, {.text = path + ": " + problem});
  }

  /// The rule of a schema, to be defined later; of a reference that of what it leads to.
  RuleId rule_of(const Json& schema, const std::string& path) {
    const Json& target = follow(schema, path);
    const auto [known, fresh] = rules_.emplace(&target, 0);
    if (fresh) {
      known->second = builder_.declare(path);
      queue_.push_back({&target, path, known->second});
    }
    return known->second;
  }
  NodeId value(const Json& schema, const std::string& path, NodeId next) {
    return builder_.call(rule_of(schema, path), next);
  }

  const Json& follow(const Json& schema, const std::string& path) {
    std::string problem;
    const Json* target = follow_references(schema_, schema, problem);
    if (target != nullptr) return *target;
    fail(path, problem);
    return kNothing;
  }

  NodeId body(const Json& schema, const std::string& path);
  bool check_keywords(const Json& schema, const std::string& path);
  bool stands_alone(const Json& schema, const std::string& path, std::string_view keyword,
                    bool beside_type);
  NodeId alternatives(const Json& schema, const std::string& path, std::string_view keyword);
  NodeId constants(const Json& schema, const std::string& path);
  std::optional<TypeSet> types(const Json& schema, const std::string& path);
  NodeId of_type(const Json& schema, const std::string& path, TypeSet types);
  NodeId string(const Json& schema, const std::string& path);
  NodeId array(const Json& schema, const std::string& path);
  NodeId object(const Json& schema, const std::string& path);
  Bounds bounds(const Json& schema, const std::string& path, bool integers);
  std::optional<int64_t> count(const Json& schema, const std::string& path, std::string_view name);

  struct Member {
    std::string name;
    const Json* schema;
    bool required;
  };
  std::vector<Member> members(const Json& schema, const std::string& path, const Json& others);
  NodeId member(const Member& member, const std::string& path, NodeId next);

  static inline const Json kNothing = false, kAnything = true;
  const Json& schema_;
  const std::string what_;
  NetworkBuilder& builder_;
  JsonGrammar& grammar_;
  Problems problems_;
  std::map<const Json*, RuleId> rules_;
  std::deque<Todo> queue_;
};

NodeId SchemaCompiler::body(const Json& schema, const std::string& path) {
  if (schema.is_boolean()) {
    return *schema.boolean() ? builder_.call(grammar_.value(), builder_.end()) : builder_.fail();
  }
  if (!schema.is_object()) {
    fail(path, fmt::format("{} (expected a schema: an object, true or false)", schema.kind_name()));
    return builder_.fail();
  }
  if (!check_keywords(schema, path)) return builder_.fail();
  for (const char* keyword : {"anyOf", "oneOf", "allOf"}) {
    if (schema.contains(keyword)) return alternatives(schema, path, keyword);
  }
  if (schema.contains("const") || schema.contains("enum")) return constants(schema, path);
  const std::optional<TypeSet> found = types(schema, path);
  if (!found) return builder_.call(grammar_.value(), builder_.end());
  return of_type(schema, path, *found);
}

bool SchemaCompiler::check_keywords(const Json& schema, const std::string& path) {
  bool known = true;
  for (const auto& [keyword, value] : schema.items()) {
    const bool of_value = keyword == "type" || keyword == "enum" || keyword == "const" ||
                          keyword == "anyOf" || keyword == "oneOf" || keyword == "allOf";
    const bool root = &schema == &schema_ && (keyword == "$id" || keyword == "id");
    if (of_value || root || is_annotation(keyword) || types_of_keyword(keyword) != 0) continue;
    fail(path, fmt::format("keyword {} is not supported", quote(keyword)));
    known = false;
  }
  return known;
}

/// Whether only annotations stand beside a keyword; they could take away from what it allows.
bool SchemaCompiler::stands_alone(const Json& schema, const std::string& path,
                                  std::string_view keyword, bool beside_type) {
  for (const auto& [other, value] : schema.items()) {
    if (other == keyword || is_annotation(other) || other == "$id" || other == "id") continue;
    if (beside_type && other == "type") continue;
    fail(path, fmt::format("{} beside {} is not supported", quote(other), quote(keyword)));
    return false;
  }
  return true;
}

NodeId SchemaCompiler::alternatives(const Json& schema, const std::string& path,
                                    std::string_view keyword) {
  if (!stands_alone(schema, path, keyword, /*beside_type=*/false)) return builder_.fail();
  const Json& list = schema[keyword];
  const std::string at = fmt::format("{}.{}", path, keyword);
  if (!list.is_array() || list.empty() || (keyword == "allOf" && list.size() != 1)) {
    fail(at, keyword == "allOf" ? "expected a list of one schema; more are not supported"
                                : "expected a list of schemas");
    return builder_.fail();
  }
  if (keyword == "oneOf" && list.size() > kMaxOneOf) {
    fail(at, fmt::format("{} schemas (expected at most {})", list.size(), kMaxOneOf));
    return builder_.fail();
  }
  NodeId out = builder_.fail();
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string branch = fmt::format("{}[{}]", at, i);
    for (size_t j = 0; keyword == "oneOf" && j < i; ++j) {
      if (are_disjoint(follow(list[i], branch), follow(list[j], at))) continue;
      fail(branch, fmt::format("may fit together with [{}] (expected alternatives told apart by "
                               "type, const or enum; anyOf takes any)",
                               j));
      return builder_.fail();
    }
    out = builder_.either(out, value(list[i], branch, builder_.end()));
  }
  return out;
}

NodeId SchemaCompiler::constants(const Json& schema, const std::string& path) {
  const bool one = schema.contains("const");
  if (!stands_alone(schema, path, one ? "const" : "enum", /*beside_type=*/true)) {
    return builder_.fail();
  }
  const Json values = one ? Json::array({schema["const"]}) : schema["enum"];
  if (!values.is_array() || values.empty()) {
    fail(path + ".enum", "expected a list of values");
    return builder_.fail();
  }
  TypeSet allowed = kAllTypes;
  if (schema.contains("type")) allowed = types(schema, path).value_or(kAllTypes);
  NodeId out = builder_.fail();
  for (const Json& constant : values) {
    if (has_type(constant, allowed)) {
      out = builder_.either(out, grammar_.literal(constant, builder_.end()));
    }
  }
  return out;
}

/// Of "type"; without it of the keywords that speak of types, nothing when there are none.
std::optional<TypeSet> SchemaCompiler::types(const Json& schema, const std::string& path) {
  TypeSet out = 0;
  const Json* type = schema.find("type");
  if (type == nullptr) {
    for (const auto& [keyword, value] : schema.items()) out |= types_of_keyword(keyword);
    return out == 0 ? std::nullopt : std::optional(out);
  }
  const Json list = type->is_array() ? *type : Json::array({*type});
  for (const Json& one : list) {
    const auto named = one.is_string() ? type_named(*one.string()) : std::nullopt;
    if (!named) {
      fail(path + ".type",
           fmt::format("expected one or a list of {}", fmt::join(kTypeNames, ", ")));
      return TypeSet{0};
    }
    out |= *named;
  }
  return out;
}

NodeId SchemaCompiler::of_type(const Json& schema, const std::string& path, TypeSet types) {
  const NodeId end = builder_.end();
  NodeId out = builder_.fail();
  const auto add = [&](NodeId part) { out = builder_.either(out, part); };
  if ((types & kNull) != 0) add(grammar_.null(end));
  if ((types & kBoolean) != 0) add(grammar_.boolean(end));
  if ((types & kNumber) != 0) {
    add(grammar_.number(bounds(schema, path, /*integers=*/false), end));
  } else if ((types & kInteger) != 0) {
    add(grammar_.integer(bounds(schema, path, /*integers=*/true), end));
  }
  if ((types & kString) != 0) add(string(schema, path));
  if ((types & kArray) != 0) add(array(schema, path));
  if ((types & kObject) != 0) add(object(schema, path));
  return out;
}

Bounds SchemaCompiler::bounds(const Json& schema, const std::string& path, bool integers) {
  Bounds out;
  const auto read = [&](const char* name, bool least, bool open) {
    const Json* found = schema.find(name);
    if (found == nullptr) return;
    const std::optional<double> number = found->number();
    const double most = integers ? 1e17 : static_cast<double>(kMaxRealBound);
    const bool whole = number && *number == std::floor(*number);
    if (!number || !(std::abs(*number) <= most) || (!integers && !whole)) {
      return fail(fmt::format("{}.{}", path, name),
                  fmt::format("expected a {}number of at most {}", integers ? "" : "whole ", most));
    }
    // Between two integers, the bound of integers is the next one inside.
    const auto bound = static_cast<int64_t>(least ? std::ceil(*number) : std::floor(*number));
    const bool is_open = open && whole;
    std::optional<int64_t>& side = least ? out.least : out.most;
    bool& side_open = least ? out.least_open : out.most_open;
    if (side && *side == bound) side_open = side_open || is_open;
    if (side && (least ? bound <= *side : bound >= *side)) return;
    side = bound;
    side_open = is_open;
  };
  read("minimum", /*least=*/true, /*open=*/false);
  read("exclusiveMinimum", /*least=*/true, /*open=*/true);
  read("maximum", /*least=*/false, /*open=*/false);
  read("exclusiveMaximum", /*least=*/false, /*open=*/true);
  return out;
}

std::optional<int64_t> SchemaCompiler::count(const Json& schema, const std::string& path,
                                             std::string_view name) {
  const Json* found = schema.find(name);
  if (found == nullptr) return std::nullopt;
  const std::optional<int64_t> value = found->integer();
  if (value && *value >= 0 && *value <= kMaxCount) return value;
  fail(fmt::format("{}.{}", path, name),
       fmt::format("expected an integer from 0 to {}", kMaxCount));
  return std::nullopt;
}

NodeId SchemaCompiler::string(const Json& schema, const std::string& path) {
  const std::optional<int64_t> least = count(schema, path, "minLength");
  const std::optional<int64_t> most = count(schema, path, "maxLength");
  const bool has_format = schema.contains("format");
  const char* keyword = has_format ? "format" : "pattern";
  const Json* found = schema.find(keyword);
  if (found == nullptr) {
    if (!least && !most) return grammar_.any_string(builder_.end());
    if (least.value_or(0) > most.value_or(kMaxCount)) return builder_.fail();
    return grammar_.string(least.value_or(0), most, builder_.end());
  }
  const std::string at = fmt::format("{}.{}", path, keyword);
  if (least || most || (has_format && schema.contains("pattern"))) {
    fail(at, "beside minLength, maxLength or one another is not supported");
    return builder_.fail();
  }
  const std::string pattern = found->is_string() ? *found->string() : "";
  const std::string_view expression = has_format ? format_pattern(pattern) : pattern;
  if (!found->is_string() || (has_format && expression.empty())) {
    fail(at,
         has_format ? "expected date, time, date-time, uuid, email or ipv4" : "expected a string");
    return builder_.fail();
  }
  const auto branches = parse_pattern(expression);
  if (!branches.ok()) {
    fail(at, branches.status().message());
    return builder_.fail();
  }
  const NodeId closing = builder_.text("\"", builder_.end());
  return builder_.text("\"",
                       PatternWriter(builder_, Spelling::kJson).write_search(*branches, closing));
}

NodeId SchemaCompiler::array(const Json& schema, const std::string& path) {
  const std::optional<int64_t> least = count(schema, path, "minItems");
  const std::optional<int64_t> most = count(schema, path, "maxItems");
  const NodeId close = builder_.text("]", builder_.end());
  if (const Json* items = schema.find("prefixItems")) {
    const auto size = static_cast<int64_t>(items->size());
    if (!items->is_array() || least.value_or(0) > size || most.value_or(size) < size) {
      fail(path + ".prefixItems",
           "expected a list of schemas, as many as minItems and maxItems allow");
      return builder_.fail();
    }
    NodeId out = size == 0 ? close : grammar_.space(close);
    for (size_t i = items->size(); i-- > 0;) {
      out = value((*items)[i], fmt::format("{}.prefixItems[{}]", path, i), out);
      if (i > 0) out = builder_.text(",", grammar_.space(out));
    }
    return builder_.text("[", grammar_.space(out));
  }
  if (least.value_or(0) > most.value_or(kMaxCount)) return builder_.fail();
  const Json* items = schema.find("items");
  const RuleId rule = items == nullptr ? grammar_.value() : rule_of(*items, path + ".items");
  const auto item = [&](NodeId next) { return builder_.call(rule, next); };
  return builder_.text("[", grammar_.space(grammar_.list(item, least.value_or(0), most, close)));
}

/// The members that are named, in the order of the schema; those that are only required at the end.
std::vector<SchemaCompiler::Member> SchemaCompiler::members(const Json& schema,
                                                            const std::string& path,
                                                            const Json& others) {
  std::vector<Member> out;
  const Json& properties = schema["properties"];
  const Json& required = schema["required"];
  if (!properties.is_null() && !properties.is_object())
    fail(path + ".properties", "expected an object");
  if (!required.is_null() && !required.is_array())
    fail(path + ".required", "expected a list of names");
  for (const auto& [name, of_member] : properties.items()) out.push_back({name, &of_member, false});
  for (const Json& name : required) {
    if (!name.is_string()) {
      fail(path + ".required", "expected a list of names");
      continue;
    }
    auto found = std::find_if(out.begin(), out.end(),
                              [&](const Member& one) { return one.name == *name.string(); });
    if (found == out.end()) found = out.insert(out.end(), {*name.string(), &others, false});
    found->required = true;
  }
  for (const Member& one : out) {
    if (one.name.size() <= kMaxNameBytes) continue;
    fail(path,
         fmt::format("a name of {} bytes (expected at most {})", one.name.size(), kMaxNameBytes));
  }
  return out;
}

NodeId SchemaCompiler::member(const Member& member, const std::string& path, NodeId next) {
  const std::string at = fmt::format("{}.properties.{}", path, member.name);
  const NodeId behind = builder_.text(":", grammar_.after_colon(value(*member.schema, at, next)));
  return grammar_.literal(member.name, behind);
}

NodeId SchemaCompiler::object(const Json& schema, const std::string& path) {
  const Json* more = schema.find("additionalProperties");
  const std::vector<Member> named = members(schema, path, more == nullptr ? kAnything : *more);
  if (!problems_.empty()) return builder_.fail();
  const NodeId close = builder_.text("}", builder_.end());
  const NodeId last = grammar_.space(close);
  const bool open = more == nullptr ? named.empty() : !(more->is_boolean() && !*more->boolean());
  // `rest`: after a member; `first`: before any.
  NodeId rest = last, first = close;
  if (open) {
    const Json& of_others = more == nullptr ? kAnything : *more;
    std::vector<std::string> names;
    for (const Member& one : named) names.push_back(one.name);
    rest = builder_.open_loop();
    const NodeId other = grammar_.other_name(
        names, builder_.text(":", grammar_.after_colon(
                                      value(of_others, path + ".additionalProperties", rest))));
    builder_.close_loop(rest, builder_.text(",", grammar_.space(other)), last);
    first = builder_.either(close, other);
  }
  for (size_t i = named.size(); i-- > 0 && !builder_.full();) {
    const NodeId written = member(named[i], path, rest);
    const NodeId next_rest = builder_.text(",", grammar_.space(written));
    first = named[i].required ? written : builder_.either(written, first);
    rest = named[i].required ? next_rest : builder_.either(next_rest, rest);
  }
  return builder_.text("{", grammar_.space(first));
}

}  // namespace

Result<RuleId> schema_rule(const Json& schema, std::string_view what, NetworkBuilder& builder,
                           JsonGrammar& grammar) {
  return SchemaCompiler(schema, what, builder, grammar).run();
}

Result<Network> schema_network(const Json& schema, std::string_view what) {
  NetworkBuilder builder;
  JsonGrammar grammar(builder);
  const Result<RuleId> root = schema_rule(schema, what, builder, grammar);
  if (!root.ok()) return root.status();
  return std::move(builder).finish(*root, what);
}

Result<Network> object_network(std::string_view what) {
  NetworkBuilder builder;
  JsonGrammar grammar(builder);
  const RuleId root = builder.rule("an object", grammar.any_object(builder.end()));
  return std::move(builder).finish(root, what);
}

}  // namespace chimera::constraint
