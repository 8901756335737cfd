// Statements.
#include "text/template/evaluator.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/template/template.h"

namespace chimera::jinja {

const Value* Frame::find(Symbol symbol) const {
  for (const auto& [held, value] : variables) {
    if (held == symbol) return &value;
  }
  return nullptr;
}

void Frame::set(Symbol symbol, Value value) {
  for (auto& [held, old] : variables) {
    if (held == symbol) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(symbol, std::move(value));
}

Evaluator::Evaluator(const ParsedTemplate& parsed, Runtime& run, const Dict& variables)
    : parsed_(parsed),
      run_(run),
      loop_symbol_(find_symbol("loop")),
      caller_symbol_(find_symbol("caller")),
      varargs_symbol_(find_symbol("varargs")),
      kwargs_symbol_(find_symbol("kwargs")),
      root_(new_frame(nullptr)) {
  for (Symbol symbol = 0; symbol < parsed.names.size(); ++symbol) {
    if (const Value* held = variables.find(std::string_view(parsed.names[symbol]))) {
      root_.set(symbol, *held);
    }
  }
}

Symbol Evaluator::find_symbol(std::string_view name) const {
  const auto at = std::find(parsed_.names.begin(), parsed_.names.end(), name);
  return at == parsed_.names.end() ? kNoSymbol : static_cast<Symbol>(at - parsed_.names.begin());
}

Frame& Evaluator::new_frame(Frame* parent) {
  Frame* frame = nullptr;
  if (free_frames_.empty()) {
    run_.allocate(sizeof(Frame));
    frame = &frames_.emplace_back();
  } else {
    frame = free_frames_.back();
    free_frames_.pop_back();
  }
  frame->parent = parent;
  return *frame;
}

void Evaluator::drop_frame(Frame& frame) {
  if (frame.captured) return;
  frame.variables.clear();
  free_frames_.push_back(&frame);
}

Text Evaluator::render() {
  Text out;
  run_body(parsed_.body, root_, out);
  return out;
}

Evaluator::Flow Evaluator::run_body(const Body& body, Frame& frame, Text& out) {
  for (const StatementPtr& statement : body) {
    if (!run_.step()) return Flow::kNext;
    const Flow flow = run_statement(*statement, frame, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run_statement(const Statement& statement, Frame& frame, Text& out) {
  const Deeper guard(*this);
  if (!run_.ok()) return Flow::kNext;
  using StatementKind = Statement::Kind;
  run_.at(statement.line);
  switch (statement.kind) {
    case StatementKind::kData:
      print(Value(statement.text), out);
      break;
    case StatementKind::kOutput:
      for (const ExprPtr& expr : statement.exprs) print(evaluate(*expr, frame), out);
      break;
    case StatementKind::kIf:
      return run_if(statement, frame, out);
    case StatementKind::kFor:
      run_for(statement, frame, out);
      break;
    case StatementKind::kSet:
      assign(statement.target, frame, evaluate(*statement.exprs[0], frame));
      break;
    case StatementKind::kSetBlock:
      run_set_block(statement, frame);
      break;
    case StatementKind::kWith:
      return run_with(statement, frame, out);
    case StatementKind::kFilter:
      run_filter_block(statement, frame, out);
      break;
    case StatementKind::kMacro:
      frame.set(statement.symbol, macro_value(statement.macro, frame));
      break;
    case StatementKind::kCall:
      run_call_block(statement, frame, out);
      break;
    case StatementKind::kGeneration: {
      const Scope scope(*this, &frame);
      return run_body(statement.bodies[0], *scope, out);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Evaluator::print(const Value& value, Text& out) {
  if (!run_.ok()) return;
  const Text* held = value.text();
  const Text text = held != nullptr ? *held : run_.text(value);
  if (!run_.step(weight_of_bytes(text.size())) || !run_.allocate(text.size())) return;
  out.append(text);
  if (out.size() > kMaxTextBytes) {
    run_.fail(fmt::format("the result is longer than {} bytes", kMaxTextBytes),
              Code::kResourceExhausted);
  }
}

Evaluator::Flow Evaluator::run_if(const Statement& statement, Frame& frame, Text& out) {
  for (size_t i = 0; i < statement.exprs.size(); ++i) {
    const bool taken = truth(evaluate(*statement.exprs[i], frame));
    if (!run_.ok()) return Flow::kNext;
    if (taken) return run_body(statement.bodies[i], frame, out);
  }
  if (statement.bodies.size() == statement.exprs.size()) return Flow::kNext;
  return run_body(statement.bodies.back(), frame, out);
}

Evaluator::Flow Evaluator::run_with(const Statement& statement, Frame& frame, Text& out) {
  const std::vector<Value> values = evaluate_all(statement.exprs, frame);
  const Scope scope(*this, &frame);
  for (size_t i = 0; i < values.size(); ++i) assign(statement.targets[i], *scope, values[i]);
  return run_body(statement.bodies[0], *scope, out);
}

void Evaluator::run_for(const Statement& statement, Frame& frame, Text& out) {
  const Value over = evaluate(*statement.exprs[0], frame);
  run_.at(statement.line);
  loop_over(statement, frame, over, /*depth=*/1, out);
}

/// The items that pass the loop's `if`.
std::vector<Value> Evaluator::chosen_items(const Statement& statement, Frame& frame,
                                           const Value& over) {
  std::vector<Value> items = run_.items(over, "for");
  if (!statement.exprs[1]) return items;
  std::vector<Value> chosen;
  for (Value& item : items) {
    if (!run_.step()) break;
    const Scope scope(*this, &frame);
    assign(statement.target, *scope, item);
    if (truth(evaluate(*statement.exprs[1], *scope))) chosen.push_back(std::move(item));
  }
  return chosen;
}

void Evaluator::loop_over(const Statement& statement, Frame& frame, const Value& over,
                          int64_t depth, Text& out) {
  std::vector<Value> items = chosen_items(statement, frame, over);
  if (!run_.allocate(sizeof(Loop))) return;
  Loop& loop = loops_.emplace_back();
  loop.items = std::move(items);
  loop.depth = depth;
  loop.recursive = statement.recursive ? &statement : nullptr;
  loop.frame = &frame;
  // As in Jinja, `else` also runs when every turn was cut short by break or continue.
  bool any_whole_turn = false;
  Flow flow = Flow::kNext;
  for (; loop.index < loop.items.size() && flow != Flow::kBreak; ++loop.index) {
    if (!run_.step()) return;
    const Scope scope(*this, &frame);
    if (loop_symbol_ != kNoSymbol) (*scope).set(loop_symbol_, Value(&std::as_const(loop)));
    assign(statement.target, *scope, loop.items[loop.index]);
    flow = run_body(statement.bodies[0], *scope, out);
    any_whole_turn = any_whole_turn || flow == Flow::kNext;
  }
  if (any_whole_turn) return;
  const Scope scope(*this, &frame);
  run_body(statement.bodies[1], *scope, out);
}

Value Evaluator::call_loop(const Loop& loop, const CallArgs& args) {
  if (loop.recursive == nullptr) {
    return run_.fail("loop(…) is called in a loop that is not recursive");
  }
  if (args.positional.size() != 1 || !args.named.empty()) {
    return run_.fail("loop(…) takes what to go through, and nothing else");
  }
  const Deeper guard(*this);
  Text out;
  loop_over(*static_cast<const Statement*>(loop.recursive), *static_cast<Frame*>(loop.frame),
            args.positional[0], loop.depth + 1, out);
  return run_.string(std::move(out));
}

Value Evaluator::captured_body(const Body& body, Frame& frame) {
  const Scope scope(*this, &frame);
  Text out;
  run_body(body, *scope, out);
  return run_.string(std::move(out));
}

void Evaluator::run_set_block(const Statement& statement, Frame& frame) {
  Value value = captured_body(statement.bodies[0], frame);
  if (statement.exprs[0]) {
    const Value* outer = std::exchange(block_subject_, &value);
    Value filtered = evaluate(*statement.exprs[0], frame);
    block_subject_ = outer;
    value = std::move(filtered);
  }
  assign(statement.target, frame, std::move(value));
}

void Evaluator::run_filter_block(const Statement& statement, Frame& frame, Text& out) {
  const Value body = captured_body(statement.bodies[0], frame);
  const Value* outer = std::exchange(block_subject_, &body);
  const Value filtered = evaluate(*statement.exprs[0], frame);
  block_subject_ = outer;
  print(filtered, out);
}

void Evaluator::run_call_block(const Statement& statement, Frame& frame, Text& out) {
  const std::pair<std::string, Value> caller{"caller", macro_value(statement.macro, frame)};
  print(evaluate_call(*statement.exprs[0], frame, &caller), out);
}

void Evaluator::assign(const Target& target, Frame& frame, Value value) {
  if (!run_.ok()) return;
  if (target.is_tuple) {
    const std::vector<Value> parts = run_.items(value, "unpacking");
    if (run_.ok() && parts.size() != target.parts.size()) {
      run_.fail(
          fmt::format("unpacking {} values into {} names", parts.size(), target.parts.size()));
    }
    for (size_t i = 0; i < target.parts.size() && run_.ok(); ++i) {
      assign(target.parts[i], frame, parts[i]);
    }
  } else if (target.attribute.empty()) {
    frame.set(target.symbol, std::move(value));
  } else if (Namespace* space = look_up(target.symbol, frame).name_space()) {
    if (run_.step(space->attributes.size()) && run_.allocate(sizeof(Value) + 32)) {
      space->set(target.attribute, std::move(value));
    }
  } else {
    run_.fail(fmt::format("'{}' is no namespace: only its attributes can be set",
                          parsed_.names[target.symbol]));
  }
}

Value Evaluator::macro_value(const MacroCode& code, Frame& frame) {
  if (!run_.allocate(sizeof(Macro) + sizeof(Function))) return {};
  // The scopes it can see must stay as they are until the render ends.
  for (Frame* seen = &frame; seen != nullptr && !seen->captured; seen = seen->parent) {
    seen->captured = true;
  }
  auto function = std::make_shared<Function>();
  function->type = Function::Type::kMacro;
  function->name = code.name;
  function->macro = &macros_.emplace_back(Macro{&code, &frame});
  return Value(std::shared_ptr<const Function>(std::move(function)));
}

Value Evaluator::call_macro(const Macro& macro, const CallArgs& args) {
  const Deeper guard(*this);
  if (!run_.step()) return {};
  const Value* outer = std::exchange(block_subject_, nullptr);
  const Scope scope(*this, macro.frame);
  bind_parameters(*macro.code, *scope, args);
  Text out;
  run_body(macro.code->body, *scope, out);
  block_subject_ = outer;
  return run_.string(std::move(out));
}

void Evaluator::bind_parameters(const MacroCode& code, Frame& frame, const CallArgs& args) {
  const size_t count = code.parameters.size();
  std::vector<const Value*> given(count, nullptr);
  std::vector<Value> more;
  auto more_named = std::make_shared<Dict>();
  for (size_t i = 0; i < args.positional.size(); ++i) {
    i < count ? void(given[i] = &args.positional[i]) : more.push_back(args.positional[i]);
  }
  if (!more.empty() && !code.uses_varargs) {
    run_.fail(fmt::format("macro '{}' takes not more than {} arguments", code.name, count));
  }
  const Value* caller = nullptr;
  for (const auto& [name, value] : args.named) {
    const auto at = std::find_if(
        code.parameters.begin(), code.parameters.end(),
        [&, &wanted = name](const Parameter& p) { return parsed_.names[p.symbol] == wanted; });
    if (at != code.parameters.end()) {
      given[static_cast<size_t>(at - code.parameters.begin())] = &value;
    } else if (name == "caller" && code.uses_caller) {
      caller = &value;
    } else if (code.uses_kwargs) {
      run_.set(*more_named, Value::string(name), value);
    } else {
      run_.fail(fmt::format("macro '{}' takes no keyword argument '{}'", code.name, name));
    }
  }
  if (code.uses_caller && caller_symbol_ != kNoSymbol) {
    frame.set(caller_symbol_, caller != nullptr ? *caller : Value::undefined("No caller defined"));
  }
  if (code.uses_varargs) frame.set(varargs_symbol_, run_.tuple(std::move(more)));
  if (code.uses_kwargs) frame.set(kwargs_symbol_, run_.dict(std::move(more_named)));
  for (size_t i = 0; i < count && run_.ok(); ++i) {
    const Parameter& parameter = code.parameters[i];
    if (given[i] != nullptr) {
      frame.set(parameter.symbol, *given[i]);
    } else if (parameter.fallback) {
      frame.set(parameter.symbol, evaluate(*parameter.fallback, frame));
    } else {
      frame.set(parameter.symbol, Value::undefined(fmt::format("parameter '{}' was not provided",
                                                               parsed_.names[parameter.symbol])));
    }
  }
}

Template::Template(std::unique_ptr<const ParsedTemplate> parsed) : parsed_(std::move(parsed)) {}
Template::~Template() = default;

Result<std::shared_ptr<const Template>> Template::parse(std::string_view source) {
  auto parsed = parse_template(source);
  if (!parsed.ok()) return parsed.status();
  return std::shared_ptr<const Template>(
      new Template(std::make_unique<const ParsedTemplate>(std::move(*parsed))));
}

Result<Rendered> Template::render(const Dict& variables, const std::tm& now, size_t max_steps,
                                  const EncodedObjects* encoded) const {
  Runtime run(now, max_steps, encoded);
  Evaluator evaluator(*parsed_, run, variables);
  const Text out = evaluator.render();
  if (!run.ok()) return run.status();
  return Rendered{out.str(), out.marks()};
}

}  // namespace chimera::jinja
