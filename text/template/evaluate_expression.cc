// Expressions.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/builtins/filters.h"
#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"
#include "text/template/evaluator.h"

namespace chimera::jinja {

using Kind = Expr::Kind;

Value Evaluator::look_up(Symbol symbol, const Frame& frame) {
  for (const Frame* at = &frame; at != nullptr; at = at->parent) {
    if (!run_.step(at->variables.size() / 16)) return {};
    if (const Value* held = at->find(symbol)) return *held;
  }
  const std::string& name = parsed_.names[symbol];
  if (!has_global(name)) return Value::undefined(fmt::format("'{}' is undefined", name));
  auto function = std::make_shared<Function>();
  function->name = name;
  return Value(std::shared_ptr<const Function>(std::move(function)));
}

Value Evaluator::evaluate(const Expr& expr, Frame& frame) {
  const Deeper guard(*this);
  if (!run_.step()) return {};
  run_.at(expr.line);
  return evaluate_here(expr, frame);
}

Value Evaluator::evaluate_here(const Expr& expr, Frame& frame) {
  const auto part = [&](size_t i) { return evaluate(*expr.parts[i], frame); };
  switch (expr.kind) {
    case Kind::kConstant:
      return expr.constant;
    case Kind::kName:
      return look_up(expr.symbol, frame);
    case Kind::kTuple:
      return run_.tuple(evaluate_all(expr.parts, frame));
    case Kind::kList:
      return run_.list(evaluate_all(expr.parts, frame));
    case Kind::kDict:
      return evaluate_dict(expr, frame);
    case Kind::kAttribute: {
      const Value subject = part(0);
      run_.at(expr.line);
      return run_.ok() ? attribute(run_, subject, expr.name) : Value();
    }
    case Kind::kItem: {
      const Value subject = part(0), key = part(1);
      run_.at(expr.line);
      return run_.ok() ? item(run_, subject, key) : Value();
    }
    case Kind::kSlice:
      return evaluate_slice(expr, frame);
    case Kind::kCall:
      return evaluate_call(expr, frame, nullptr);
    case Kind::kFilter:
      return evaluate_filter(expr, frame);
    case Kind::kTest:
      return evaluate_test(expr, frame);
    case Kind::kNegate:
    case Kind::kPlus: {
      const Value operand = part(0);
      return run_.ok() ? negate(run_, operand, expr.kind == Kind::kNegate) : Value();
    }
    case Kind::kNot:
      return Value(!truth(part(0)));
    case Kind::kBinary: {
      const Value left = part(0), right = part(1);
      run_.at(expr.line);
      return run_.ok() ? binary(run_, expr.op, left, right) : Value();
    }
    case Kind::kCompare:
      return evaluate_compare(expr, frame);
    case Kind::kConcat:
      return evaluate_concat(expr, frame);
    case Kind::kAnd: {
      Value left = part(0);
      return truth(left) ? part(1) : left;
    }
    case Kind::kOr: {
      Value left = part(0);
      return truth(left) ? left : part(1);
    }
    case Kind::kChoice:
      if (truth(part(1))) return part(0);
      if (expr.parts[2]) return part(2);
      return Value::undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.",
          expr.line));
  }
  return {};
}

std::vector<Value> Evaluator::evaluate_all(const std::vector<ExprPtr>& parts, Frame& frame) {
  std::vector<Value> out;
  out.reserve(parts.size());
  for (const ExprPtr& part : parts) out.push_back(evaluate(*part, frame));
  return out;
}

Value Evaluator::evaluate_dict(const Expr& expr, Frame& frame) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i + 1 < expr.parts.size() && run_.ok(); i += 2) {
    Value key = evaluate(*expr.parts[i], frame);
    run_.set(*dict, std::move(key), evaluate(*expr.parts[i + 1], frame));
  }
  return run_.dict(std::move(dict));
}

Value Evaluator::evaluate_slice(const Expr& expr, Frame& frame) {
  const auto bound = [&](size_t i) {
    return expr.parts[i] ? evaluate(*expr.parts[i], frame) : Value(None{});
  };
  const Value subject = evaluate(*expr.parts[0], frame);
  const Value begin = bound(1), end = bound(2), step = bound(3);
  run_.at(expr.line);
  return run_.ok() ? slice(run_, subject, begin, end, step) : Value();
}

Value Evaluator::evaluate_compare(const Expr& expr, Frame& frame) {
  Value left = evaluate(*expr.parts[0], frame);
  for (size_t i = 0; i < expr.comparisons.size() && run_.ok(); ++i) {
    Value right = evaluate(*expr.parts[i + 1], frame);
    run_.at(expr.line);
    if (!run_.ok() || !compare(run_, expr.comparisons[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::evaluate_concat(const Expr& expr, Frame& frame) {
  Text out;
  for (const ExprPtr& part : expr.parts) {
    const Value value = evaluate(*part, frame);
    if (!run_.ok()) return {};
    out.append(run_.text(value));
    if (out.size() > kMaxTextBytes) break;  // string() tells
  }
  return run_.string(std::move(out));
}

CallArgs Evaluator::arguments(const Arguments& from, Frame& frame) {
  CallArgs out;
  out.positional = evaluate_all(from.positional, frame);
  for (const auto& [name, expr] : from.named) {
    if (run_.ok()) out.named.emplace_back(name, evaluate(*expr, frame));
  }
  if (from.more_positional) {
    for (Value& item : run_.items(evaluate(*from.more_positional, frame), "*")) {
      out.positional.push_back(std::move(item));
    }
  }
  if (from.more_named) {
    const Value more = evaluate(*from.more_named, frame);
    if (more.dict() == nullptr) {
      run_.mismatch("**", more, "a dict");
      return out;
    }
    for (const auto& [key, value] : more.dict()->items) {
      out.named.emplace_back(run_.need_text(key, "**").str(), value);
    }
  }
  return out;
}

Value Evaluator::evaluate_call(const Expr& expr, Frame& frame,
                               const std::pair<std::string, Value>* extra) {
  const Expr& callee = *expr.parts[0];
  // A method is called without making an object of it first.
  const bool member = callee.kind == Kind::kAttribute;
  const Value subject = evaluate(member ? *callee.parts[0] : callee, frame);
  if (!run_.ok()) return {};
  const bool method = member && has_method(subject, callee.name);
  const Value function =
      !member ? subject : (method ? Value() : attribute(run_, subject, callee.name));
  CallArgs args = arguments(expr.arguments, frame);
  if (extra != nullptr) args.named.push_back(*extra);
  run_.at(expr.line);
  if (!run_.ok()) return {};
  return method ? call_method(run_, subject, callee.name, args) : call(function, args);
}

Value Evaluator::call(const Value& callee, const CallArgs& args) {
  if (const Loop* loop = callee.loop()) return call_loop(*loop, args);
  const Function* function = callee.function();
  if (function == nullptr) return run_.mismatch("call", callee, "a function or macro");
  switch (function->type) {
    case Function::Type::kGlobal:
      return call_global(run_, function->name, args);
    case Function::Type::kMethod:
      return call_method(run_, function->self, function->name, args);
    case Function::Type::kMacro:
      return call_macro(*function->macro, args);
    case Function::Type::kJoiner:
      return function->uses++ == 0 ? run_.string(Text()) : function->self;
    case Function::Type::kCycler:
      break;
  }
  return run_.fail("a cycler is not called but asked for .next()");
}

Value Evaluator::evaluate_filter(const Expr& expr, Frame& frame) {
  const Value subject = expr.parts[0] ? evaluate(*expr.parts[0], frame)
                                      : (block_subject_ ? *block_subject_ : Value());
  const CallArgs args = arguments(expr.arguments, frame);
  run_.at(expr.line);
  return run_.ok() ? apply_filter(run_, expr.name, subject, args) : Value();
}

Value Evaluator::evaluate_test(const Expr& expr, Frame& frame) {
  const Value subject = evaluate(*expr.parts[0], frame);
  const CallArgs args = arguments(expr.arguments, frame);
  run_.at(expr.line);
  if (!run_.ok()) return {};
  return Value(apply_test(run_, expr.name, subject, args) != expr.negated);
}

}  // namespace chimera::jinja
