// Expressions of the template grammar: constants, names, tuples, lists and dicts; and what is
// assigned to.
#include <fmt/format.h>

#include "text/template/syntax/parser_impl.h"

namespace chimera::jinja {
namespace {

using Kind = Expr::Kind;
using Type = Token::Type;

}  // namespace

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
