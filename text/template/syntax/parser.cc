// Statements of the template grammar.
#include "text/template/syntax/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/syntax/parser_impl.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

using StatementKind = Statement::Kind;
using Type = Token::Type;

constexpr std::array<std::string_view, 7> kRefusedTags = {
    "block", "extends", "include", "import", "from", "autoescape", "do"};

std::unique_ptr<Statement> statement_node(StatementKind kind, int line) {
  auto out = std::make_unique<Statement>();
  out->kind = kind;
  out->line = line;
  return out;
}

int height_of(const Body& body) {
  int height = 0;
  for (const StatementPtr& part : body) {
    if (part) height = std::max(height, part->height);
  }
  return height;
}

}  // namespace

Parser::Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) { macros_.emplace_back(); }

void Parser::fail(const std::string& message, Code code) {
  if (!status_.ok()) return;
  const Status placed = template_error(now().line, message);
  status_ = Status(code, placed.message(), placed.hint());
  at_ = tokens_.size() - 1;
}

std::string Parser::found() const {
  switch (now().type) {
    case Type::kEnd:
      return "the end of the template";
    case Type::kVariableEnd:
      return "'}}'";
    case Type::kBlockEnd:
      return "'%}'";
    case Type::kString:
      return "a string";
    default:
      return fmt::format("'{}'", now().text);
  }
}

bool Parser::accept(std::string_view op) {
  if (!at(op)) return false;
  next();
  return true;
}

bool Parser::accept_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

void Parser::expect(std::string_view op) {
  if (ok() && !accept(op)) fail(fmt::format("found {} (expected '{}')", found(), op));
}

void Parser::expect_name(std::string_view name) {
  if (ok() && !accept_name(name)) fail(fmt::format("found {} (expected '{}')", found(), name));
}

void Parser::expect_block_end() {
  if (!ok()) return;
  if (now().type != Type::kBlockEnd) return fail(fmt::format("found {} (expected '%}}')", found()));
  next();
}

std::string Parser::take_name() {
  if (!ok()) return {};
  if (now().type != Type::kName) {
    fail(fmt::format("found {} (expected a name)", found()));
    return {};
  }
  std::string name = now().text;
  next();
  return name;
}

Symbol Parser::symbol(const std::string& name) {
  if (name == "caller") macros_.back().caller = true;
  if (name == "varargs") macros_.back().varargs = true;
  if (name == "kwargs") macros_.back().kwargs = true;
  const auto [at, is_new] = symbols_.try_emplace(name, static_cast<Symbol>(names_.size()));
  if (is_new) names_.push_back(name);
  return at->second;
}

StatementPtr Parser::finish(std::unique_ptr<Statement> made) {
  int height = height_of(made->macro.body);
  for (const Body& body : made->bodies) height = std::max(height, height_of(body));
  for (const ExprPtr& expr : made->exprs) {
    if (expr) height = std::max(height, expr->height);
  }
  made->height = height + 1;
  if (made->height > kMaxHeight) fail("blocks are nested too deep");
  return made;
}

/// Statements up to a tag named in `ends`, whose name is then the token at hand; without `ends` up
/// to the end of the template.
Body Parser::statements(std::initializer_list<std::string_view> ends) {
  const Deeper guard(*this);
  Body body;
  while (ok() && now().type != Type::kEnd) {
    if (now().type == Type::kData) {
      auto data = statement_node(StatementKind::kData, now().line);
      data->text = Text(now().text);
      next();
      body.push_back(finish(std::move(data)));
    } else if (now().type == Type::kVariableBegin) {
      body.push_back(output());
    } else {
      next();  // {%
      if (std::any_of(ends.begin(), ends.end(), [&](auto name) { return at_name(name); })) {
        return body;
      }
      body.push_back(statement());
      expect_block_end();
    }
  }
  if (ok() && ends.size() > 0) {
    fail(fmt::format("found the end of the template (expected {{% {} %}})",
                     fmt::join(ends, " %} or {% ")));
  }
  return body;
}

/// A body: the end of the opening tag, statements, and the name of the closing tag at hand.
Body Parser::block(std::initializer_list<std::string_view> ends) {
  accept(":");
  expect_block_end();
  return statements(ends);
}

StatementPtr Parser::output() {
  auto out = statement_node(StatementKind::kOutput, now().line);
  next();  // {{
  out->exprs.push_back(tuple(/*with_choice=*/true, /*parenthesized=*/false));
  if (ok() && now().type != Type::kVariableEnd) {
    fail(fmt::format("found {} (expected '}}}}')", found()));
  }
  next();
  return finish(std::move(out));
}

StatementPtr Parser::statement() {
  struct Tag {
    std::string_view name;
    StatementPtr (Parser::*parse)();
  };
  static constexpr std::array<Tag, 11> kTags = {{{"if", &Parser::if_tag},
                                                 {"for", &Parser::for_tag},
                                                 {"set", &Parser::set_tag},
                                                 {"with", &Parser::with_tag},
                                                 {"macro", &Parser::macro_tag},
                                                 {"call", &Parser::call_tag},
                                                 {"filter", &Parser::filter_tag},
                                                 {"print", &Parser::print_tag},
                                                 {"generation", &Parser::generation_tag},
                                                 {"break", &Parser::loop_control_tag},
                                                 {"continue", &Parser::loop_control_tag}}};
  if (now().type != Type::kName) {
    fail(fmt::format("found {} (expected the name of a tag)", found()));
    return nullptr;
  }
  const auto tag =
      std::find_if(kTags.begin(), kTags.end(), [&](const Tag& one) { return at_name(one.name); });
  if (tag != kTags.end()) return (this->*tag->parse)();
  if (std::find(kRefusedTags.begin(), kRefusedTags.end(), now().text) != kRefusedTags.end()) {
    fail(fmt::format("the tag '{}' is not supported in chat templates", now().text),
         Code::kUnimplemented);
  } else {
    fail(fmt::format("unknown tag {}", found()));
  }
  return nullptr;
}

StatementPtr Parser::print_tag() {
  auto out = statement_node(StatementKind::kOutput, now().line);
  next();
  while (ok() && now().type != Type::kBlockEnd) {
    if (!out->exprs.empty()) expect(",");
    out->exprs.push_back(expression());
  }
  return finish(std::move(out));
}

StatementPtr Parser::if_tag() {
  auto out = statement_node(StatementKind::kIf, now().line);
  do {
    next();  // if, elif
    out->exprs.push_back(tuple(/*with_choice=*/false, /*parenthesized=*/false));
    out->bodies.push_back(block({"elif", "else", "endif"}));
  } while (ok() && at_name("elif"));
  if (accept_name("else")) out->bodies.push_back(block({"endif"}));
  expect_name("endif");
  return finish(std::move(out));
}

StatementPtr Parser::for_tag() {
  auto out = statement_node(StatementKind::kFor, now().line);
  next();
  out->target = target(/*with_tuple=*/true, /*with_namespace=*/false, "in");
  expect_name("in");
  out->exprs.push_back(tuple(/*with_choice=*/false, /*parenthesized=*/false, "recursive"));
  out->exprs.push_back(accept_name("if") ? expression() : nullptr);
  out->recursive = accept_name("recursive");
  ++macros_.back().loops;
  out->bodies.push_back(block({"endfor", "else"}));
  --macros_.back().loops;
  out->bodies.emplace_back();
  if (accept_name("else")) out->bodies.back() = block({"endfor"});
  expect_name("endfor");
  return finish(std::move(out));
}

StatementPtr Parser::loop_control_tag() {
  if (macros_.back().loops == 0) fail(fmt::format("{} stands outside of a loop", found()));
  auto out = statement_node(at_name("break") ? StatementKind::kBreak : StatementKind::kContinue,
                            now().line);
  next();
  return finish(std::move(out));
}

StatementPtr Parser::set_tag() {
  auto out = statement_node(StatementKind::kSet, now().line);
  next();
  out->target = target(/*with_tuple=*/true, /*with_namespace=*/true);
  if (accept("=")) {
    out->exprs.push_back(tuple(/*with_choice=*/true, /*parenthesized=*/false));
    return finish(std::move(out));
  }
  out->kind = StatementKind::kSetBlock;
  out->exprs.push_back(filters(nullptr, /*inline_start=*/false));
  out->bodies.push_back(block({"endset"}));
  expect_name("endset");
  return finish(std::move(out));
}

StatementPtr Parser::with_tag() {
  auto out = statement_node(StatementKind::kWith, now().line);
  next();
  while (ok() && now().type != Type::kBlockEnd) {
    if (!out->targets.empty()) expect(",");
    out->targets.push_back(target(/*with_tuple=*/false, /*with_namespace=*/false));
    expect("=");
    out->exprs.push_back(expression());
  }
  out->bodies.push_back(block({"endwith"}));
  expect_name("endwith");
  return finish(std::move(out));
}

std::vector<Parameter> Parser::signature() {
  std::vector<Parameter> out;
  expect("(");
  while (ok() && !at(")")) {
    if (!out.empty()) expect(",");
    Parameter parameter;
    parameter.symbol = symbol(take_name());
    if (accept("=")) {
      parameter.fallback = expression();
    } else if (!out.empty() && out.back().fallback) {
      fail("a parameter without default follows one with default");
    }
    out.push_back(std::move(parameter));
  }
  expect(")");
  return out;
}

void Parser::begin_macro_body() { macros_.emplace_back(); }

void Parser::end_macro_body(MacroCode& code) {
  const MacroUse use = macros_.back();
  macros_.pop_back();
  code.uses_caller = use.caller;
  code.uses_varargs = use.varargs;
  code.uses_kwargs = use.kwargs;
}

StatementPtr Parser::macro_tag() {
  auto out = statement_node(StatementKind::kMacro, now().line);
  next();
  out->macro.name = take_name();
  out->symbol = symbol(out->macro.name);
  begin_macro_body();
  out->macro.parameters = signature();
  out->macro.body = block({"endmacro"});
  end_macro_body(out->macro);
  expect_name("endmacro");
  return finish(std::move(out));
}

StatementPtr Parser::call_tag() {
  auto out = statement_node(StatementKind::kCall, now().line);
  next();
  out->macro.name = "caller";
  // The parameters belong to the body, the call does not.
  std::vector<Parameter> parameters;
  begin_macro_body();
  if (at("(")) parameters = signature();
  end_macro_body(out->macro);
  out->macro.parameters = std::move(parameters);
  out->exprs.push_back(expression());
  if (ok() && out->exprs.back()->kind != Expr::Kind::kCall) {
    fail("the call tag needs a call (expected {% call name(…) %})");
  }
  begin_macro_body();
  out->macro.body = block({"endcall"});
  end_macro_body(out->macro);
  // `caller` inside the body is that of the macro around it.
  macros_.back().caller = macros_.back().caller || out->macro.uses_caller;
  out->macro.uses_caller = false;
  expect_name("endcall");
  return finish(std::move(out));
}

StatementPtr Parser::filter_tag() {
  auto out = statement_node(StatementKind::kFilter, now().line);
  next();
  out->exprs.push_back(filters(nullptr, /*inline_start=*/true));
  out->bodies.push_back(block({"endfilter"}));
  expect_name("endfilter");
  return finish(std::move(out));
}

StatementPtr Parser::generation_tag() {
  auto out = statement_node(StatementKind::kGeneration, now().line);
  next();
  out->bodies.push_back(block({"endgeneration"}));
  expect_name("endgeneration");
  return finish(std::move(out));
}

Result<ParsedTemplate> parse_template(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return Status(Code::kDataCorrupt, fmt::format("template of {} bytes (expected at most {})",
                                                  source.size(), kMaxTemplateBytes));
  }
  if (const auto bad = find_invalid_utf8(source)) {
    return Status(Code::kDataCorrupt, fmt::format("template is not valid UTF-8 at byte {}", *bad));
  }
  auto tokens = tokenize(source);
  if (!tokens.ok()) return tokens.status();
  Parser parser(std::move(*tokens));
  ParsedTemplate out;
  out.body = parser.statements({});
  if (!parser.ok()) return parser.status();
  out.names = parser.take_names();
  return out;
}

}  // namespace chimera::jinja
