#include "text/template/builtins/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/template/builtins/format.h"
#include "text/template/value/big_integer.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

const char* spelling(Op op) {
  static constexpr const char* kSpellings[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSpellings[static_cast<size_t>(op)];
}

Value unsupported(Runtime& run, Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) return run.mismatch(spelling(op), a, "");
  if (b.is_undefined()) return run.mismatch(spelling(op), b, "");
  return run.fail(
      fmt::format("{} is not defined between {} and {}", spelling(op), type_name(a), type_name(b)));
}

/// The operator of exact(); nullopt for `/`.
std::optional<IntegerOp> exact_op(Op op) {
  switch (op) {
    case Op::kAdd:
      return IntegerOp::kAdd;
    case Op::kSubtract:
      return IntegerOp::kSubtract;
    case Op::kMultiply:
      return IntegerOp::kMultiply;
    case Op::kFloorDivide:
      return IntegerOp::kFloorDivide;
    case Op::kModulo:
      return IntegerOp::kModulo;
    case Op::kPower:
      return IntegerOp::kPower;
    default:
      return std::nullopt;
  }
}

double real_of(Runtime& run, const Value& number) {
  if (number.real() != nullptr) return *number.real();
  const auto real = nearest_float(number);
  if (!real) run.fail("the integer is too large for a float");
  return real.value_or(0.0);
}

/// What a step of a render pays for: the digits of an integer.
size_t digits_of(const Value& integer) {
  return integer.big() == nullptr ? 20 : integer.big()->digits.size();
}

/// Integers of any size. REQUIRES: neither a division by 0 nor a negative exponent.
Value large_integers(Runtime& run, Op op, const Value& a, const Value& b) {
  if (!run.step(digits_of(a) + digits_of(b))) return {};
  const auto exactly = exact_op(op);
  const auto result = exactly ? exact(*exactly, a, b) : std::nullopt;
  if (result) return *result;
  if (exactly) {
    return run.fail(fmt::format("the integer result has more than {} digits", kMaxDigits),
                    Code::kResourceExhausted);
  }
  const auto quotient = true_quotient(a, b);
  return quotient ? Value(*quotient) : run.fail("the quotient is too large for a float");
}

/// Integers of which one is not of 64 bits.
Value mixed_integers(Runtime& run, Op op, const Value& a, const Value& b) {
  const bool divides = op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo;
  if (divides && !truth(b)) return run.fail("division by zero");
  if (op == Op::kPower && run.less(b, Value(int64_t{0}))) {
    if (!truth(a)) return run.fail("0 cannot be raised to a negative power");
    const double base = real_of(run, a), exponent = real_of(run, b);
    return run.ok() ? Value(std::pow(base, exponent)) : Value();
  }
  return large_integers(run, op, a, b);
}

Value integers(Runtime& run, Op op, int64_t a, int64_t b) {
  const auto overflowed = [&] { return large_integers(run, op, Value(a), Value(b)); };
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      return __builtin_add_overflow(a, b, &result) ? overflowed() : Value(result);
    case Op::kSubtract:
      return __builtin_sub_overflow(a, b, &result) ? overflowed() : Value(result);
    case Op::kMultiply:
      return __builtin_mul_overflow(a, b, &result) ? overflowed() : Value(result);
    case Op::kPower:
      if (b >= 0) return overflowed();
      if (a == 0) return run.fail("0 cannot be raised to a negative power");
      return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    default:
      break;
  }
  if (b == 0) return run.fail("division by zero");
  // The quotient of the nearest floats is not always the float nearest to the quotient.
  if (op == Op::kDivide) return overflowed();
  if (b == -1) {  // the only quotient that overflows; the remainder is 0
    if (op == Op::kModulo) return Value(int64_t{0});
    return __builtin_sub_overflow(int64_t{0}, a, &result) ? overflowed() : Value(result);
  }
  // Python rounds quotients down and gives remainders the sign of the divisor.
  const bool adjust = a % b != 0 && ((a % b < 0) != (b < 0));
  if (op == Op::kFloorDivide) return Value(a / b - (adjust ? 1 : 0));
  return Value(a % b + (adjust ? b : 0));
}

Value reals(Runtime& run, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSubtract:
      return Value(a - b);
    case Op::kMultiply:
      return Value(a * b);
    case Op::kPower: {
      if (a == 0.0 && b < 0.0) return run.fail("0 cannot be raised to a negative power");
      if (a < 0.0 && std::floor(b) != b) return run.fail("the power is a complex number");
      return Value(std::pow(a, b));
    }
    default:
      break;
  }
  if (b == 0.0) return run.fail("division by zero");
  if (op == Op::kDivide) return Value(a / b);
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0.0 && (remainder < 0.0) != (b < 0.0)) {
    remainder += b;
    quotient -= 1.0;
  } else if (remainder == 0.0) {
    remainder = std::copysign(0.0, b);
  }
  if (op == Op::kModulo) return Value(remainder);
  return Value(std::floor(quotient) + (quotient - std::floor(quotient) > 0.5 ? 1.0 : 0.0));
}

Value add_texts(Runtime& run, const Text& a, const Text& b) {
  const bool markup = a.markup || b.markup;
  Text out = markup && !a.markup ? escaped(a) : a;
  out.append(markup && !b.markup ? escaped(b) : b);
  out.markup = markup;
  return run.string(std::move(out));
}

/// `what` times a string or a list; the size is checked before anything is made.
Value repeat(Runtime& run, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (const Text* text = what.text()) {
    if (!text->empty() && count > kMaxTextBytes / text->size()) {
      return run.fail("the repeated string is too long", Code::kResourceExhausted);
    }
    Text out;
    for (size_t i = 0; i < (text->empty() ? 0 : count); ++i) out.append(*text);
    out.markup = text->markup;
    return run.string(std::move(out));
  }
  const Sequence& sequence = *what.sequence();
  const size_t size = sequence.items.size();
  if (size > 0 && count > kMaxAllocated / sizeof(Value) / size) {
    return run.fail("the repeated list is too long", Code::kResourceExhausted);
  }
  std::vector<Value> items;
  if (!run.step(size * count) || !run.allocate(size * count * sizeof(Value))) return {};
  for (size_t i = 0; i < (size == 0 ? 0 : count); ++i) {
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return run.make(sequence.form, std::move(items));
}

bool repeatable(const Value& value) {
  if (value.text() != nullptr) return true;
  const Sequence* sequence = value.indexed();
  return sequence != nullptr && sequence->form != Sequence::Form::kRange;
}

bool contains(Runtime& run, const Value& container, const Value& what) {
  if (run.object_needed(container)) return false;
  if (const Text* text = container.text()) {
    const Text* part = what.text();
    if (part == nullptr) return run.mismatch("in", what, "a string to look for in a string"), false;
    if (!run.step(weight(container))) return false;
    return text->str().find(part->str()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (!run.step(weight(what))) return false;
    if (!hash_key(what)) run.fail(fmt::format("in: a {} cannot be a key", type_name(what)));
    return run.ok() && dict->find(what) != nullptr;
  }
  for (const Value& held : run.items(container, "in")) {
    if (run.equal(held, what)) return true;
  }
  return false;
}

/// Bounds of a slice for a sequence of `size`, as Python clips them.
struct Slice {
  int64_t start = 0, stop = 0, step = 1;
};

int64_t clip(int64_t bound, int64_t size, bool backward) {
  if (bound < 0) bound = bound < -size ? (backward ? -1 : 0) : bound + size;
  const int64_t last = backward ? size - 1 : size;
  return std::min(bound, last);
}

/// One that 64 bits do not hold lies beyond every end.
int64_t bound_of(Runtime& run, const Value& bound, std::string_view what) {
  if (const BigInteger* big = bound.big()) return big->negative() ? INT64_MIN : INT64_MAX;
  return run.need_integer(bound, what);
}

Slice resolve(Runtime& run, int64_t size, const Value& begin, const Value& end, const Value& by) {
  Slice out;
  const auto given = [](const Value& bound) { return !bound.is_none(); };
  if (given(by)) out.step = bound_of(run, by, "slice step");
  if (out.step == 0) {
    run.fail("the step of a slice is 0");
    out.step = 1;
  }
  const bool backward = out.step < 0;
  out.start = given(begin) ? clip(bound_of(run, begin, "slice"), size, backward)
                           : (backward ? size - 1 : 0);
  out.stop =
      given(end) ? clip(bound_of(run, end, "slice"), size, backward) : (backward ? -1 : size);
  return out;
}

Value slice_text(Runtime& run, const Text& text, const Value& begin, const Value& end,
                 const Value& by) {
  if (!run.step(weight_of_bytes(text.size()))) return {};
  const Slice range =
      resolve(run, static_cast<int64_t>(character_count(text.str())), begin, end, by);
  const int64_t count = range_length(range.start, range.stop, range.step);
  if (count == 0 || !run.ok()) return run.string(Text());
  const std::string_view bytes = text.str();
  const size_t first = character_offset(bytes, static_cast<size_t>(range.start));
  if (range.step == 1) {
    const size_t size = character_offset(bytes.substr(first), static_cast<size_t>(count));
    return run.string(text.slice(first, first + size));
  }
  std::vector<size_t> offsets;
  if (!run.allocate(bytes.size() * sizeof(size_t))) return {};
  for (size_t at = 0; at < bytes.size(); at += char_length(bytes[at])) {
    offsets.push_back(at);
  }
  Text out;
  for (int64_t i = 0; i < count; ++i) {
    const size_t at = offsets[static_cast<size_t>(range.start + i * range.step)];
    out.append(text, at, at + char_length(bytes[at]));
  }
  return run.string(std::move(out));
}

}  // namespace

int64_t range_length(int64_t start, int64_t stop, int64_t step) {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  // Unsigned, because the distance may need all 64 bits.
  const uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                     : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride =
      step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  const uint64_t count = (distance - 1) / stride + 1;
  return static_cast<int64_t>(std::min<uint64_t>(count, INT64_MAX));
}

Text escaped(const Text& text) {
  Text out;
  const std::string& bytes = text.str();
  for (size_t at = 0; at < bytes.size(); ++at) {
    const char c = bytes[at];
    const char* entity = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '\'' ? "&#39;"
                         : c == '"'  ? "&#34;"
                                     : nullptr;
    if (entity == nullptr) {
      out.append(text, at, at + 1);
    } else {
      out.append_as(entity, text, at, at + 1);
    }
  }
  return out;
}

Value binary(Runtime& run, Op op, const Value& a, const Value& b) {
  if (a.integer() && b.integer()) return integers(run, op, *a.integer(), *b.integer());
  if (a.is_number() && b.is_number()) {
    if (a.real() == nullptr && b.real() == nullptr) return mixed_integers(run, op, a, b);
    const double left = real_of(run, a), right = real_of(run, b);
    return run.ok() ? reals(run, op, left, right) : Value();
  }
  if (op == Op::kModulo && a.text() != nullptr) return percent_format(run, *a.text(), b);
  if (op == Op::kMultiply && repeatable(a) && b.integer()) return repeat(run, a, *b.integer());
  if (op == Op::kMultiply && repeatable(b) && a.integer()) return repeat(run, b, *a.integer());
  if (op != Op::kAdd) return unsupported(run, op, a, b);
  if (a.text() != nullptr && b.text() != nullptr) return add_texts(run, *a.text(), *b.text());
  const Sequence *left = a.indexed(), *right = b.indexed();
  if (left == nullptr || right == nullptr || left->form != right->form ||
      left->form == Sequence::Form::kRange) {
    return unsupported(run, op, a, b);
  }
  std::vector<Value> items = left->items;
  items.insert(items.end(), right->items.begin(), right->items.end());
  return run.make(left->form, std::move(items));
}

bool compare(Runtime& run, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEqual:
      return run.equal(a, b);
    case Op::kNotEqual:
      return !run.equal(a, b);
    case Op::kLess:
      return run.less(a, b);
    case Op::kGreater:
      return run.less(b, a);
    case Op::kLessEqual:
      return run.less(a, b) || run.equal(a, b);
    case Op::kGreaterEqual:
      return run.less(b, a) || run.equal(a, b);
    case Op::kIn:
      return contains(run, b, a);
    default:
      return !contains(run, b, a);
  }
}

Value negate(Runtime& run, const Value& a, bool minus) {
  if (const auto integer = a.integer()) {
    if (!minus) return Value(*integer);
    return integers(run, Op::kSubtract, 0, *integer);
  }
  if (const double* real = a.real()) return Value(minus ? -*real : *real);
  if (a.big() != nullptr) return minus ? large_integers(run, Op::kSubtract, int64_t{0}, a) : a;
  return run.mismatch(minus ? "-" : "+", a, "a number");
}

Value slice(Runtime& run, const Value& a, const Value& begin, const Value& end, const Value& by) {
  if (const Text* text = a.text()) return slice_text(run, *text, begin, end, by);
  const Sequence* sequence = a.indexed();
  if (sequence == nullptr) return run.mismatch("slice", a, "a list or string");
  const Slice range = resolve(run, static_cast<int64_t>(sequence->items.size()), begin, end, by);
  const int64_t count = range_length(range.start, range.stop, range.step);
  if (!run.ok() || !run.step(static_cast<size_t>(count))) return {};
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) {
    items.push_back(sequence->items[static_cast<size_t>(range.start + i * range.step)]);
  }
  const bool is_range = sequence->form == Sequence::Form::kRange;
  return run.make(is_range ? Sequence::Form::kList : sequence->form, std::move(items));
}

int64_t length(Runtime& run, const Value& a) {
  if (a.is_undefined()) return 0;
  if (const Text* text = a.text()) {
    run.step(weight_of_bytes(text->size()));
    return static_cast<int64_t>(character_count(text->str()));
  }
  if (const Dict* dict = a.dict()) return static_cast<int64_t>(dict->items.size());
  if (const Loop* loop = a.loop()) return static_cast<int64_t>(loop->items.size());
  const Sequence* sequence = a.sequence();
  if (sequence == nullptr || sequence->form == Sequence::Form::kIterator) {
    run.mismatch("length", a, "a list, dict or string");
    return 0;
  }
  return static_cast<int64_t>(sequence->items.size());
}

}  // namespace chimera::jinja
