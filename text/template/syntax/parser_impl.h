// Private to this room: the state of one parse.
//
// Thread safety: none; a parser by one thread, for one parse.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/template/syntax/ast.h"
#include "text/template/syntax/lexer.h"

namespace chimera::jinja {

/// After the first error every method returns null or nothing and the position stands at the end,
/// so that all loops end.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens);

  // The token stream.
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool at(std::string_view op) const { return now().is_operator(op); }
  bool at_name(std::string_view name) const { return now().is_name(name); }
  bool accept(std::string_view op);
  bool accept_name(std::string_view name);
  void expect(std::string_view op);
  void expect_name(std::string_view name);
  void expect_block_end();
  std::string take_name();
  void fail(const std::string& message, Code code = Code::kDataCorrupt);
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  /// The token at hand as an error message names it.
  std::string found() const;

  Symbol symbol(const std::string& name);
  std::vector<std::string> take_names() { return std::move(names_); }

  // Expressions (expression.cc, operand.cc, postfix.cc), each named after what Jinja's grammar
  // calls it.
  ExprPtr expression(bool with_choice = true);
  ExprPtr tuple(bool with_choice, bool parenthesized, std::string_view end_name = {});
  ExprPtr filters(ExprPtr subject, bool inline_start);
  Target target(bool with_tuple, bool with_namespace, std::string_view end_name = {});

  // Statements (parser.cc).
  Body statements(std::initializer_list<std::string_view> ends);

 private:
  using Make = ExprPtr (Parser::*)();
  class Deeper;
  friend class Deeper;

  ExprPtr choice();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr postfix(ExprPtr subject);
  ExprPtr filter_or_test(ExprPtr subject);
  ExprPtr subscript(ExprPtr subject);
  ExprPtr subscribed(ExprPtr subject);
  ExprPtr call(ExprPtr subject);
  ExprPtr test(ExprPtr subject);
  ExprPtr list();
  ExprPtr dict();
  ExprPtr string_constant();
  Arguments arguments();
  bool tuple_ends(std::string_view end_name) const;
  bool test_argument_follows() const;
  ExprPtr binary(ExprPtr left, Op op, ExprPtr right, int line);
  ExprPtr finish(std::unique_ptr<Expr> node);

  StatementPtr statement();
  StatementPtr output();
  StatementPtr print_tag();
  StatementPtr if_tag();
  StatementPtr for_tag();
  StatementPtr set_tag();
  StatementPtr with_tag();
  StatementPtr macro_tag();
  StatementPtr call_tag();
  StatementPtr filter_tag();
  StatementPtr generation_tag();
  StatementPtr loop_control_tag();
  StatementPtr finish(std::unique_ptr<Statement> node);
  std::vector<Parameter> signature();
  Body block(std::initializer_list<std::string_view> ends);
  void end_tag();
  void begin_macro_body();
  void end_macro_body(MacroCode& code);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;  // around the statement, within its macro
  struct MacroUse {
    bool caller = false, varargs = false, kwargs = false;
    int loops = 0;
  };
  std::vector<MacroUse> macros_;  // innermost last
  std::vector<std::string> names_;
  std::map<std::string, Symbol, std::less<>> symbols_;
  Status status_;
};

/// A node to be filled in and given to Parser::finish().
std::unique_ptr<Expr> node(Expr::Kind kind, int line);

/// Guards the recursion of the parser.
class Parser::Deeper {
 public:
  explicit Deeper(Parser& parser) : parser_(parser) {
    if (++parser_.depth_ > kMaxHeight) parser_.fail("expressions or blocks are nested too deep");
  }
  ~Deeper() { --parser_.depth_; }

 private:
  Parser& parser_;
};

}  // namespace chimera::jinja
