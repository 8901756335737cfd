#include "text/template/builtins/runtime.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/unicode.h"

namespace chimera::jinja {

Value Runtime::fail(std::string_view message, Code code) {
  if (!status_.ok()) return {};
  status_ = Status(code, fmt::format("chat template line {}: {}", line_, message),
                   code == Code::kResourceExhausted
                       ? "send less at once, or simplify the template"
                       : "send what the template asks for, or correct the template");
  return {};
}

Value Runtime::mismatch(std::string_view what, const Value& value, std::string_view expected) {
  if (const auto* undefined = std::get_if<Undefined>(&value.data())) {
    return fail(
        fmt::format("{}: {}", what, undefined->problem ? *undefined->problem : "undefined value"));
  }
  return fail(fmt::format("{}: found {} (expected {})", what, type_name(value), expected));
}

bool Runtime::needs_decoding(const Text& text) {
  if (!encoded_->contains(&text)) return false;
  fail("an object is needed where a string of JSON was sent");
  return true;
}

bool Runtime::step(size_t count) {
  if (!ok()) return false;
  steps_ = saturating_add(steps_, count);
  if (steps_ <= max_steps_) return true;
  fail(fmt::format("the template took more than {} steps", max_steps_), Code::kResourceExhausted);
  return false;
}

bool Runtime::allocate(size_t bytes) {
  if (!ok()) return false;
  allocated_ = saturating_add(allocated_, bytes);
  if (allocated_ <= kMaxAllocated) return true;
  fail(fmt::format("the template made more than {} bytes of values", kMaxAllocated),
       Code::kResourceExhausted);
  return false;
}

Value Runtime::string(Text text) {
  if (text.size() > kMaxTextBytes) {
    return fail(fmt::format("a string of more than {} bytes", kMaxTextBytes),
                Code::kResourceExhausted);
  }
  if (!step(weight_of_bytes(text.size()))) return {};
  if (!allocate(sizeof(Text) + text.size() + text.marks().size() * sizeof(TextSpan))) return {};
  return Value(std::move(text));
}

Value Runtime::make(Sequence::Form form, std::vector<Value> items) {
  if (!step(items.size()) || !allocate(sizeof(Sequence) + items.size() * sizeof(Value))) return {};
  auto made = make_sequence(form, std::move(items));
  if (made->nesting > kMaxNesting) {
    return fail(fmt::format("values nested deeper than {}", kMaxNesting), Code::kResourceExhausted);
  }
  return Value(std::shared_ptr<const Sequence>(std::move(made)));
}

void Runtime::set(Dict& dict, Value key, Value value) {
  if (!step(weight(key)) || !allocate(2 * sizeof(Value) + 64)) return;
  if (!dict.set(std::move(key), std::move(value))) {
    fail("a list or dict cannot be the key of a dict");
  }
}

Value Runtime::dict(std::shared_ptr<Dict> made) {
  if (made->nesting > kMaxNesting) {
    return fail(fmt::format("values nested deeper than {}", kMaxNesting), Code::kResourceExhausted);
  }
  return Value(std::shared_ptr<const Dict>(std::move(made)));
}

Namespace* Runtime::name_space() {
  allocate(sizeof(Namespace));
  return &spaces_.emplace_back();
}

namespace {

/// Dicts are compared by hashing the keys of one, whatever the other holds; the rest stops with the
/// smaller side.
size_t comparison_cost(const Value& a, const Value& b) {
  const bool scalar = nesting(a) == 0 || nesting(b) == 0;
  return scalar ? std::min(weight(a), weight(b)) : std::max(weight(a), weight(b));
}

}  // namespace

bool Runtime::equal(const Value& a, const Value& b) {
  if (!step(comparison_cost(a, b))) return false;
  return jinja::equal(a, b);
}

bool Runtime::less(const Value& a, const Value& b) {
  if (!step(comparison_cost(a, b))) return false;
  const auto result = jinja::less(a, b);
  if (!result) {
    if (a.is_undefined()) return mismatch("comparison", a, ""), false;
    if (b.is_undefined()) return mismatch("comparison", b, ""), false;
    const bool numbers = a.is_number() && b.is_number();  // one of them is NaN
    if (!numbers) {
      fail(fmt::format("{} and {} cannot be ordered", type_name(a), type_name(b)));
    }
  }
  return result.value_or(false);
}

Text Runtime::text(const Value& value) {
  if (const Text* held = value.text()) return *held;
  if (!step(weight(value))) return {};
  Text out = to_text(value);
  step(weight_of_bytes(out.size()));
  allocate(out.size());
  return out;
}

const Text& Runtime::need_text(const Value& value, std::string_view what) {
  static const Text kEmpty;
  if (const Text* held = value.text()) {
    return step(weight_of_bytes(held->size())) ? *held : kEmpty;
  }
  mismatch(what, value, "a string");
  return kEmpty;
}

int64_t Runtime::need_integer(const Value& value, std::string_view what) {
  if (const auto held = value.integer()) return *held;
  mismatch(what, value, "an integer");
  return 0;
}

std::vector<Value> Runtime::items(const Value& value, std::string_view what) {
  std::vector<Value> out;
  if (value.is_undefined() || !ok() || object_needed(value)) return out;
  if (const Sequence* sequence = value.sequence()) {
    if (!step(sequence->items.size()) || !allocate(sequence->items.size() * sizeof(Value))) {
      return out;
    }
    const auto from = static_cast<std::ptrdiff_t>(sequence->taken);
    out.assign(sequence->items.begin() + from, sequence->items.end());
    if (sequence->form == Sequence::Form::kIterator) sequence->taken = sequence->items.size();
  } else if (const Dict* dict = value.dict()) {
    if (!step(dict->items.size()) || !allocate(dict->items.size() * sizeof(Value))) return out;
    for (const auto& [key, held] : dict->items) out.push_back(key);
  } else if (const Text* text = value.text()) {
    for (size_t at = 0; at < text->size() && ok();) {
      const size_t length = char_length(text->str()[at]);
      out.push_back(string(text->slice(at, at + length)));
      at += length;
    }
  } else {
    mismatch(what, value, "something to go through: a list, dict or string");
  }
  return out;
}

Bound::Bound(Runtime& run, std::string_view function, const CallArgs& args,
             std::initializer_list<std::string_view> parameters, size_t required)
    : run_(run), function_(function), values_(parameters.size(), nullptr) {
  if (args.positional.size() > parameters.size()) {
    run.fail(fmt::format("{}: {} arguments (expected at most {})", function, args.positional.size(),
                         parameters.size()));
    return;
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(parameters.begin(), parameters.end(), name);
    const auto i = static_cast<size_t>(at - parameters.begin());
    if (at == parameters.end() || values_[i] != nullptr) {
      run.fail(fmt::format("{}: {} argument '{}'", function,
                           at == parameters.end() ? "unknown" : "repeated", name));
      return;
    }
    values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      run.fail(fmt::format("{}: the argument '{}' is missing", function, parameters.begin()[i]));
    }
  }
}

const Value& Bound::operator[](size_t i) const {
  static const Value kAbsent;
  return has(i) ? *values_[i] : kAbsent;
}

int64_t Bound::integer(size_t i, int64_t fallback) const {
  return has(i) ? run_.need_integer(*values_[i], function_) : fallback;
}

const Text& Bound::text(size_t i) const { return run_.need_text((*this)[i], function_); }

}  // namespace chimera::jinja
