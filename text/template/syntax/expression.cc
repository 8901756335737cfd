// Expressions of the template grammar: the operators, from the weakest to the strongest.
#include <algorithm>
#include <array>

#include "text/template/syntax/parser_impl.h"

namespace chimera::jinja {
namespace {

using Kind = Expr::Kind;

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

}  // namespace

std::unique_ptr<Expr> node(Kind kind, int line) {
  auto out = std::make_unique<Expr>();
  out->kind = kind;
  out->line = line;
  return out;
}

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

}  // namespace chimera::jinja
