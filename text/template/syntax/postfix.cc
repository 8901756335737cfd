// Expressions of the template grammar: what follows an operand. Attributes, items, slices, calls,
// filters and tests.
#include <fmt/format.h>

#include "text/template/syntax/parser_impl.h"

namespace chimera::jinja {
namespace {

using Kind = Expr::Kind;
using Type = Token::Type;

}  // namespace

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

}  // namespace chimera::jinja
