#include "text/constraint/parts.h"

#include <map>
#include <optional>

#include <fmt/format.h>

#include "base/fields/problems.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "text/constraint/json_schema.h"
#include "text/constraint/pattern.h"

namespace chimera::constraint {
namespace {

constexpr size_t kMaxPartProblems = 8;
constexpr std::string_view kKinds =
    "one of text, mark, regex, json_schema, json_object, without, one_of, repeat";

class PartsCompiler {
 public:
  PartsCompiler(const TokenTable& tokens, std::string_view what)
      : tokens_(tokens), what_(what), problems_({}, kMaxPartProblems) {}

  Result<Network> run(const Json& parts) {
    const NodeId start = sequence(parts, what_, builder_.end());
    if (!problems_.empty()) return problems_.status("docs/constraints.md lists the parts");
    const RuleId root = builder_.rule("the parts", start);
    return std::move(builder_).finish(root, what_);
  }

 private:
  NodeId fail(const std::string& where, const std::string& problem) {
    problems_.add({}, {.text = where + ": " + problem});
    return builder_.fail();
  }

  NodeId sequence(const Json& list, const std::string& where, NodeId next) {
    if (!list.is_array()) {
      return fail(where, fmt::format("{} (expected a list of parts)", list.kind_name()));
    }
    for (size_t i = list.size(); i-- > 0 && !builder_.full();) {
      next = part(list[i], fmt::format("{}[{}]", where, i), next);
    }
    return next;
  }

  NodeId part(const Json& part, const std::string& where, NodeId next) {
    const bool named = part.contains("json_schema") && part["name"].is_string();
    if (!part.is_object() || part.size() != (named ? 2 : 1)) {
      return fail(where, fmt::format("expected an object with {}", kKinds));
    }
    const auto& [kind, value] = part.items()[named && part.items()[0].key == "name" ? 1 : 0];
    const std::string at = where + "." + kind;
    if (kind == "text" || kind == "mark") return words(value, kind == "mark", at, next);
    if (kind == "regex") return expression(value, at, next);
    if (kind == "json_schema") return schema(value, named ? *part["name"].string() : at, next);
    if (kind == "json_object") {
      if (value != Json(true)) return fail(at, "expected true");
      return schema(kAnyObject, at, next);
    }
    if (kind == "without") return without(value, at, next);
    if (kind == "one_of") return one_of(value, at, next);
    if (kind == "repeat") return repeat(value, at, next);
    return fail(where, fmt::format("{} (expected {})", quote(kind), kKinds));
  }

  NodeId words(const Json& value, bool mark, const std::string& at, NodeId next) {
    const std::string* text = value.string();
    if (text == nullptr) return fail(at, "expected a string");
    const bool special = mark && tokens_.has_mark(*text);
    return builder_.text(special ? kMarkByte + *text : *text, next);
  }

  NodeId expression(const Json& value, const std::string& at, NodeId next) {
    const std::string* text = value.string();
    if (text == nullptr) return fail(at, "expected a string");
    const auto branches = parse_pattern(*text);
    if (!branches.ok()) return fail(at, branches.status().message());
    return patterns_.write_whole(*branches, next);
  }

  /// The same schema twice is one rule.
  NodeId schema(const Json& value, const std::string& at, NodeId next) {
    const auto [known, fresh] = schemas_.emplace(write_json(value), std::nullopt);
    if (fresh) {
      const Result<RuleId> rule = schema_rule(value, at, builder_, grammar_);
      if (!rule.ok()) return fail(at, rule.status().message());
      known->second = *rule;
    }
    return known->second ? builder_.call(*known->second, next) : builder_.fail();
  }

  NodeId without(const Json& value, const std::string& at, NodeId next) {
    std::vector<std::string> marks;
    for (const Json& one : value) {
      const std::string* text = one.string();
      if (text != nullptr && !text->empty() && text->size() <= kMaxWithoutBytes) {
        marks.push_back(*text);
      }
    }
    if (!value.is_array() || marks.size() != value.size() || marks.size() > kMaxWithout) {
      return fail(at, fmt::format("expected at most {} strings of 1 to {} bytes", kMaxWithout,
                                  kMaxWithoutBytes));
    }
    return words_without(builder_, marks, next);
  }

  NodeId one_of(const Json& value, const std::string& at, NodeId next) {
    if (!value.is_array() || value.empty()) return fail(at, "expected alternatives, each a list");
    NodeId out = builder_.fail();
    for (size_t i = value.size(); i-- > 0 && !builder_.full();) {
      out = builder_.either(sequence(value[i], fmt::format("{}[{}]", at, i), next), out);
    }
    return out;
  }

  NodeId repeat(const Json& value, const std::string& at, NodeId next) {
    const NodeId head = builder_.open_loop();
    builder_.close_loop(head, sequence(value, at, head), next);
    return head;
  }

  static inline const Json kAnyObject = Json{{"type", "object"}};
  const TokenTable& tokens_;
  const std::string what_;
  NetworkBuilder builder_;
  JsonGrammar grammar_{builder_};
  PatternWriter patterns_{builder_, Spelling::kPlain};
  Problems problems_;
  std::map<std::string, std::optional<RuleId>> schemas_;
};

}  // namespace

Result<Network> parts_network(const Json& parts, const TokenTable& tokens, std::string_view what) {
  return PartsCompiler(tokens, what).run(parts);
}

}  // namespace chimera::constraint
