// Walks the tree of a template. Private to the interpreter.
//
// Thread safety: one thread; a render makes its own.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "text/template/builtins/runtime.h"
#include "text/template/syntax/ast.h"
#include "text/template/syntax/parser.h"

namespace chimera::jinja {

/// Variables of one scope. Frames of the arena point to each other; nothing owns one.
struct Frame {
  Frame* parent = nullptr;
  std::vector<std::pair<Symbol, Value>> variables;
  bool captured = false;  // a macro defined in or below it may be called later

  const Value* find(Symbol symbol) const;
  void set(Symbol symbol, Value value);
};

/// A macro with the scope it was defined in.
struct Macro {
  const MacroCode* code = nullptr;
  Frame* frame = nullptr;
};

class Evaluator {
 public:
  Evaluator(const ParsedTemplate& parsed, Runtime& run, const Dict& variables);

  /// Runs the whole template.
  Text render();

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class Deeper;
  class Scope;

  // Statements (evaluator.cc).
  Flow run_body(const Body& body, Frame& frame, Text& out);
  Flow run_statement(const Statement& statement, Frame& frame, Text& out);
  Flow run_if(const Statement& statement, Frame& frame, Text& out);
  Flow run_with(const Statement& statement, Frame& frame, Text& out);
  void run_for(const Statement& statement, Frame& frame, Text& out);
  void loop_over(const Statement& statement, Frame& frame, const Value& over, int64_t depth,
                 Text& out);
  std::vector<Value> chosen_items(const Statement& statement, Frame& frame, const Value& over);
  void run_set_block(const Statement& statement, Frame& frame);
  void run_filter_block(const Statement& statement, Frame& frame, Text& out);
  void run_call_block(const Statement& statement, Frame& frame, Text& out);
  void print(const Value& value, Text& out);
  Value captured_body(const Body& body, Frame& frame);
  void assign(const Target& target, Frame& frame, Value value);
  Value macro_value(const MacroCode& code, Frame& frame);
  Value call_macro(const Macro& macro, const CallArgs& args);
  void bind_parameters(const MacroCode& code, Frame& frame, const CallArgs& args);
  Value call_loop(const Loop& loop, const CallArgs& args);

  // Expressions (evaluate_expression.cc).
  Value evaluate(const Expr& expr, Frame& frame);
  Value evaluate_here(const Expr& expr, Frame& frame);
  Value evaluate_call(const Expr& expr, Frame& frame, const std::pair<std::string, Value>* extra);
  Value evaluate_filter(const Expr& expr, Frame& frame);
  Value evaluate_test(const Expr& expr, Frame& frame);
  Value evaluate_compare(const Expr& expr, Frame& frame);
  Value evaluate_concat(const Expr& expr, Frame& frame);
  Value evaluate_dict(const Expr& expr, Frame& frame);
  Value evaluate_slice(const Expr& expr, Frame& frame);
  std::vector<Value> evaluate_all(const std::vector<ExprPtr>& parts, Frame& frame);
  CallArgs arguments(const Arguments& arguments, Frame& frame);
  Value look_up(Symbol symbol, const Frame& frame);
  Value call(const Value& callee, const CallArgs& args);

  Symbol find_symbol(std::string_view name) const;
  Frame& new_frame(Frame* parent);
  void drop_frame(Frame& frame);

  static constexpr Symbol kNoSymbol = UINT32_MAX;

  const ParsedTemplate& parsed_;
  Runtime& run_;
  std::deque<Frame> frames_;
  std::vector<Frame*> free_frames_;
  std::deque<Loop> loops_;
  std::deque<Macro> macros_;
  const Value* block_subject_ = nullptr;  // what the filters of a block apply to
  int depth_ = 0;
  Symbol loop_symbol_, caller_symbol_, varargs_symbol_, kwargs_symbol_;
  Frame& root_;
};

/// Functions every template has: range, namespace, dict, joiner, cycler, raise_exception,
/// strftime_now.
bool has_global(std::string_view name);
Value call_global(Runtime& run, std::string_view name, const CallArgs& args);

/// Guards the recursion of the evaluator.
class Evaluator::Deeper {
 public:
  explicit Deeper(Evaluator& evaluator) : evaluator_(evaluator) {
    // 1000 levels take about half a megabyte of stack; deep schemas need some two hundred.
    constexpr int kMaxDepth = 1000;
    if (++evaluator_.depth_ > kMaxDepth) {
      evaluator_.run_.fail("the template recurses too deep", Code::kResourceExhausted);
    }
  }
  ~Deeper() { --evaluator_.depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  Evaluator& evaluator_;
};

/// A frame for the time of a block.
class Evaluator::Scope {
 public:
  Scope(Evaluator& evaluator, Frame* parent)
      : evaluator_(evaluator), frame_(evaluator.new_frame(parent)) {}
  ~Scope() { evaluator_.drop_frame(frame_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  Frame& operator*() const { return frame_; }

 private:
  Evaluator& evaluator_;
  Frame& frame_;
};

}  // namespace chimera::jinja
