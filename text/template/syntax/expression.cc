// Expressions of the template grammar.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/syntax/parser_impl.h"

namespace chimera::jinja {
namespace {

using Kind = Expr::Kind;
using Type = Token::Type;

struct Spelled {
  std::string_view spelling;
  Op op;
};
constexpr std::array<Spelled, 6> kComparisons = {{{"==", Op::kEqual},
                                                  {"!=", Op::kNotEqual},
                                                  {"<", Op::kLess},
                                                  {"<=", Op::kLessEqual},
                                                  {">", Op::kGreater},
                                                  {">=", Op::kGreaterEqual}}};
constexpr std::array<Spelled, 2> kSums = {{{"+", Op::kAdd}, {"-", Op::kSubtract}}};
constexpr std::array<Spelled, 4> kProducts = {
    {{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}}};

template <size_t N>
const Spelled* find_operator(const std::array<Spelled, N>& table, const Token& token) {
  const auto it = std::find_if(table.begin(), table.end(),
                               [&](const Spelled& s) { return token.is_operator(s.spelling); });
  return it == table.end() ? nullptr : &*it;
}

std::unique_ptr<Expr> node(Kind kind, int line) {
  auto out = std::make_unique<Expr>();
  out->kind = kind;
  out->line = line;
  return out;
}

}  // namespace

ExprPtr Parser::finish(std::unique_ptr<Expr> made) {
  int height = 0;
  const auto look = [&](const ExprPtr& part) {
    if (part) height = std::max(height, part->height);
  };
  for (const ExprPtr& part : made->parts) look(part);
  for (const ExprPtr& part : made->arguments.positional) look(part);
  for (const auto& [name, part] : made->arguments.named) look(part);
  look(made->arguments.more_positional);
  look(made->arguments.more_named);
  made->height = height + 1;
  if (made->height > kMaxHeight) fail("the expression has too many parts in a row or nested");
  return made;
}

ExprPtr Parser::binary(ExprPtr left, Op op, ExprPtr right, int line) {
  auto out = node(Kind::kBinary, line);
  out->op = op;
  out->parts.push_back(std::move(left));
  out->parts.push_back(std::move(right));
  return finish(std::move(out));
}

ExprPtr Parser::expression(bool with_choice) {
  const Deeper guard(*this);
  return with_choice ? choice() : logical_or();
}

ExprPtr Parser::choice() {
  const int line = now().line;
  ExprPtr value = logical_or();
  while (ok() && accept_name("if")) {
    auto out = node(Kind::kChoice, line);
    out->parts.push_back(std::move(value));
    out->parts.push_back(logical_or());
    out->parts.push_back(accept_name("else") ? expression() : nullptr);
    value = finish(std::move(out));
  }
  return value;
}

ExprPtr Parser::logical_or() {
  ExprPtr left = logical_and();
  while (ok() && at_name("or")) {
    auto out = node(Kind::kOr, now().line);
    next();
    out->parts.push_back(std::move(left));
    out->parts.push_back(logical_and());
    left = finish(std::move(out));
  }
  return left;
}

ExprPtr Parser::logical_and() {
  ExprPtr left = logical_not();
  while (ok() && at_name("and")) {
    auto out = node(Kind::kAnd, now().line);
    next();
    out->parts.push_back(std::move(left));
    out->parts.push_back(logical_not());
    left = finish(std::move(out));
  }
  return left;
}

ExprPtr Parser::logical_not() {
  const Deeper guard(*this);
  if (!ok() || !at_name("not")) return comparison();
  auto out = node(Kind::kNot, now().line);
  next();
  out->parts.push_back(logical_not());
  return finish(std::move(out));
}

ExprPtr Parser::comparison() {
  auto out = node(Kind::kCompare, now().line);
  out->parts.push_back(sum());
  while (ok()) {
    if (const Spelled* found = find_operator(kComparisons, now())) {
      out->comparisons.push_back(found->op);
      next();
    } else if (accept_name("in")) {
      out->comparisons.push_back(Op::kIn);
    } else if (at_name("not") && ahead().is_name("in")) {
      next();
      next();
      out->comparisons.push_back(Op::kNotIn);
    } else {
      break;
    }
    out->parts.push_back(sum());
  }
  if (out->comparisons.empty()) return std::move(out->parts[0]);
  return finish(std::move(out));
}

ExprPtr Parser::sum() {
  ExprPtr left = concat();
  while (ok()) {
    const Spelled* found = find_operator(kSums, now());
    if (found == nullptr) break;
    const int line = now().line;
    next();
    left = binary(std::move(left), found->op, concat(), line);
  }
  return left;
}

ExprPtr Parser::concat() {
  auto out = node(Kind::kConcat, now().line);
  out->parts.push_back(product());
  while (ok() && accept("~")) out->parts.push_back(product());
  if (out->parts.size() == 1) return std::move(out->parts[0]);
  return finish(std::move(out));
}

ExprPtr Parser::product() {
  ExprPtr left = power();
  while (ok()) {
    const Spelled* found = find_operator(kProducts, now());
    if (found == nullptr) break;
    const int line = now().line;
    next();
    left = binary(std::move(left), found->op, power(), line);
  }
  return left;
}

ExprPtr Parser::power() {
  ExprPtr left = unary();
  while (ok() && at("**")) {
    const int line = now().line;
    next();
    left = binary(std::move(left), Op::kPower, unary(), line);
  }
  return left;
}

ExprPtr Parser::unary(bool with_filters) {
  const Deeper guard(*this);
  if (!ok()) return nullptr;
  ExprPtr out;
  if (at("-") || at("+")) {
    auto sign = node(at("-") ? Kind::kNegate : Kind::kPlus, now().line);
    next();
    sign->parts.push_back(unary(/*with_filters=*/false));
    out = finish(std::move(sign));
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filters ? filter_or_test(std::move(out)) : std::move(out);
}

ExprPtr Parser::string_constant() {
  auto out = node(Kind::kConstant, now().line);
  std::string text;
  for (; now().type == Type::kString; next()) text += now().text;
  out->constant = Value::string(std::move(text));
  return finish(std::move(out));
}

ExprPtr Parser::primary() {
  const Token& token = now();
  if (token.type == Type::kString) return string_constant();
  if (at("[")) return list();
  if (at("{")) return dict();
  if (accept("(")) {
    ExprPtr inside = tuple(/*with_choice=*/true, /*parenthesized=*/true);
    expect(")");
    return inside;
  }
  auto out = node(Kind::kConstant, token.line);
  if (token.type == Type::kInteger) {
    out->constant = token.integer;
  } else if (token.type == Type::kFloat) {
    out->constant = Value(token.real);
  } else if (token.type != Type::kName) {
    fail(fmt::format("found {} (expected an expression)", found()));
    return nullptr;
  } else if (token.text == "true" || token.text == "True") {
    out->constant = Value(true);
  } else if (token.text == "false" || token.text == "False") {
    out->constant = Value(false);
  } else if (token.text == "none" || token.text == "None") {
    out->constant = Value(None{});
  } else {
    out->kind = Kind::kName;
    out->symbol = symbol(token.text);
  }
  next();
  return finish(std::move(out));
}

bool Parser::tuple_ends(std::string_view end_name) const {
  return now().type == Type::kVariableEnd || now().type == Type::kBlockEnd || at(")") ||
         (!end_name.empty() && at_name(end_name));
}

ExprPtr Parser::tuple(bool with_choice, bool parenthesized, std::string_view end_name) {
  auto out = node(Kind::kTuple, now().line);
  bool is_tuple = false;
  while (ok() && !tuple_ends(end_name)) {
    out->parts.push_back(expression(with_choice));
    if (!accept(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return finish(std::move(out));
  if (!out->parts.empty()) return std::move(out->parts[0]);
  if (!parenthesized) fail(fmt::format("found {} (expected an expression)", found()));
  return finish(std::move(out));
}

ExprPtr Parser::list() {
  auto out = node(Kind::kList, now().line);
  expect("[");
  while (ok() && !at("]")) {
    out->parts.push_back(expression());
    if (!accept(",")) break;
  }
  expect("]");
  return finish(std::move(out));
}

ExprPtr Parser::dict() {
  auto out = node(Kind::kDict, now().line);
  expect("{");
  while (ok() && !at("}")) {
    out->parts.push_back(expression());
    expect(":");
    out->parts.push_back(expression());
    if (!accept(",")) break;
  }
  expect("}");
  return finish(std::move(out));
}

ExprPtr Parser::postfix(ExprPtr subject) {
  while (ok()) {
    if (at(".") || at("[")) {
      subject = subscript(std::move(subject));
    } else if (at("(")) {
      subject = call(std::move(subject));
    } else {
      break;
    }
  }
  return subject;
}

ExprPtr Parser::filter_or_test(ExprPtr subject) {
  while (ok()) {
    if (at("|")) {
      subject = filters(std::move(subject), /*inline_start=*/false);
    } else if (at_name("is")) {
      subject = test(std::move(subject));
    } else if (at("(")) {
      subject = call(std::move(subject));
    } else {
      break;
    }
  }
  return subject;
}

ExprPtr Parser::subscript(ExprPtr subject) {
  const int line = now().line;
  if (accept("[")) {
    ExprPtr out = subscribed(std::move(subject));
    expect("]");
    return out;
  }
  expect(".");
  auto out = node(Kind::kAttribute, line);
  out->parts.push_back(std::move(subject));
  if (now().type == Type::kName) {
    out->name = now().text;
  } else if (now().type == Type::kInteger) {
    out->kind = Kind::kItem;
    auto index = node(Kind::kConstant, line);
    index->constant = now().integer;
    out->parts.push_back(finish(std::move(index)));
  } else {
    fail(fmt::format("found {} after a dot (expected a name or a number)", found()));
  }
  next();
  return finish(std::move(out));
}

/// What stands in the brackets behind `subject`.
ExprPtr Parser::subscribed(ExprPtr subject) {
  const int line = now().line;
  if (at("]")) {
    fail("found ']' (expected an index)");
    return nullptr;
  }
  ExprPtr first = at(":") ? nullptr : expression();
  if (accept(":")) {
    auto out = node(Kind::kSlice, line);
    const auto bound = [this] { return at(":") || at("]") ? nullptr : expression(); };
    out->parts.push_back(std::move(subject));
    out->parts.push_back(std::move(first));
    out->parts.push_back(bound());
    out->parts.push_back(accept(":") ? bound() : nullptr);
    return finish(std::move(out));
  }
  auto out = node(Kind::kItem, line);
  out->parts.push_back(std::move(subject));
  if (at(",")) {  // x[a, b] is x[(a, b)]
    auto key = node(Kind::kTuple, line);
    key->parts.push_back(std::move(first));
    while (ok() && accept(",")) key->parts.push_back(expression());
    first = finish(std::move(key));
  }
  out->parts.push_back(std::move(first));
  return finish(std::move(out));
}

Arguments Parser::arguments() {
  Arguments out;
  expect("(");
  while (ok() && !at(")")) {
    if (accept("**")) {
      if (out.more_named) fail("a second ** argument");
      out.more_named = expression();
    } else if (accept("*")) {
      if (out.more_positional || out.more_named) fail("a misplaced * argument");
      out.more_positional = expression();
    } else if (now().type == Type::kName && ahead().is_operator("=")) {
      if (out.more_named) fail("an argument after **");
      std::string name = take_name();
      next();
      out.named.emplace_back(std::move(name), expression());
    } else {
      if (out.more_positional || out.more_named || !out.named.empty()) {
        fail("a positional argument after a named one");
      }
      out.positional.push_back(expression());
    }
    if (!accept(",")) break;
  }
  expect(")");
  return out;
}

ExprPtr Parser::call(ExprPtr subject) {
  auto out = node(Kind::kCall, now().line);
  out->parts.push_back(std::move(subject));
  out->arguments = arguments();
  return finish(std::move(out));
}

ExprPtr Parser::filters(ExprPtr subject, bool inline_start) {
  while (ok() && (inline_start || accept("|"))) {
    inline_start = false;
    auto out = node(Kind::kFilter, now().line);
    out->parts.push_back(std::move(subject));
    out->name = take_name();
    while (ok() && accept(".")) out->name += "." + take_name();
    if (at("(")) out->arguments = arguments();
    subject = finish(std::move(out));
  }
  return subject;
}

bool Parser::test_argument_follows() const {
  switch (now().type) {
    case Type::kString:
    case Type::kInteger:
    case Type::kFloat:
      return true;
    case Type::kName:
      return !at_name("else") && !at_name("or") && !at_name("and");
    default:
      return at("[") || at("{");
  }
}

ExprPtr Parser::test(ExprPtr subject) {
  next();  // is
  auto out = node(Kind::kTest, now().line);
  out->negated = accept_name("not");
  out->parts.push_back(std::move(subject));
  out->name = take_name();
  while (ok() && accept(".")) out->name += "." + take_name();
  if (at("(")) {
    out->arguments = arguments();
  } else if (test_argument_follows()) {
    if (at_name("is")) fail("tests cannot be chained with \"is\"");
    out->arguments.positional.push_back(postfix(primary()));
  }
  return finish(std::move(out));
}

Target Parser::target(bool with_tuple, bool with_namespace, std::string_view end_name) {
  const Deeper guard(*this);
  Target out;
  while (ok()) {
    Target part;
    if (accept("(")) {
      part = target(true, with_namespace);
      expect(")");
    } else {
      const bool is_literal =
          now().type == Type::kName && (at_name("true") || at_name("false") || at_name("none") ||
                                        at_name("True") || at_name("False") || at_name("None"));
      if (is_literal) fail(fmt::format("{} cannot be assigned to", found()));
      part.symbol = symbol(take_name());
      if (with_namespace && accept(".")) part.attribute = take_name();
    }
    out.parts.push_back(std::move(part));
    if (!with_tuple || !accept(",")) break;
    out.is_tuple = true;
    if (at("=") || tuple_ends(end_name)) break;
  }
  if (out.is_tuple || out.parts.empty()) return out;
  Target only = std::move(out.parts[0]);
  return only;
}

}  // namespace chimera::jinja
