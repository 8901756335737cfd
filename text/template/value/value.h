// Values of the template interpreter, with the semantics of the Python objects Jinja works on.
//
// Everything but Namespace and Loop is immutable, as in Hugging Face's
// ImmutableSandboxedEnvironment; those two live in the render's arena and are only pointed to, so
// values form no cycles. Nesting is bounded (kMaxNesting) so that recursion over a value is, too.
//
// Thread safety: constants of a template are shared by concurrent renders and never change.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/template/value/text.h"

namespace chimera::jinja {

inline constexpr int kMaxNesting = 100;
/// Longest string a render may make, and the longest result.
inline constexpr size_t kMaxTextBytes = size_t{16} << 20;

struct Sequence;
struct Dict;
struct Function;
struct Namespace;
struct Loop;

/// What a missing variable or member evaluates to: prints as nothing, fails on most uses.
struct Undefined {
  std::shared_ptr<const std::string> problem;  // told when it is used; null: "undefined value"
};
struct None {};

/// An integer that 64 bits do not hold; big_integer.h computes with it.
struct BigInteger {
  std::string digits;  // decimal without leading zeros, '-' in front of a negative one
  bool negative() const { return digits[0] == '-'; }
};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                            std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
                            std::shared_ptr<const Function>, Namespace*, const Loop*,
                            std::shared_ptr<const BigInteger>>;

  Value() = default;  // undefined
  Value(None none) : data_(none) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  Value(std::shared_ptr<const Sequence> sequence) : data_(std::move(sequence)) {}
  Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
  Value(std::shared_ptr<const Function> function) : data_(std::move(function)) {}
  Value(Namespace* borrowed) : data_(borrowed) {}
  Value(const Loop* borrowed) : data_(borrowed) {}
  Value(BigInteger big) : data_(std::make_shared<const BigInteger>(std::move(big))) {}
  Value(const char*) = delete;  // would become a bool
  static Value undefined(std::string problem);
  static Value string(std::string text) { return Value(Text(std::move(text))); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  /// Null unless the value has that type.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const Text* text() const { return pointee<Text>(); }
  const Sequence* sequence() const { return pointee<Sequence>(); }
  const Dict* dict() const { return pointee<Dict>(); }
  const Function* function() const { return pointee<Function>(); }
  Namespace* name_space() const {
    const auto* held = std::get_if<Namespace*>(&data_);
    return held == nullptr ? nullptr : *held;
  }
  const Loop* loop() const {
    const auto* held = std::get_if<const Loop*>(&data_);
    return held == nullptr ? nullptr : *held;
  }
  const BigInteger* big() const { return pointee<BigInteger>(); }
  /// Integers of 64 bits and, as in Python, booleans.
  std::optional<int64_t> integer() const;
  /// Those and floats.
  std::optional<double> number() const;
  /// Whether Python counts it among the numbers.
  bool is_number() const { return number().has_value() || big() != nullptr; }
  /// A list, tuple or range: has a length and positions.
  const Sequence* indexed() const;

  const Data& data() const { return data_; }

 private:
  template <class T>
  const T* pointee() const {
    const auto* held = std::get_if<std::shared_ptr<const T>>(&data_);
    return held == nullptr ? nullptr : held->get();
  }
  Data data_;
};

struct Sequence {
  enum class Form : uint8_t { kList, kTuple, kRange, kKeys, kValues, kItems, kIterator };
  Form form = Form::kList;
  int nesting = 1;
  size_t weight = 1;
  std::vector<Value> items;
  /// Iterators give every item once: the next one. Only one render ever holds an iterator.
  mutable size_t taken = 0;
  int64_t start = 0, stop = 0, step = 1;  // of a range, for printing
  bool is_group = false;                  // a pair of `groupby`, with .grouper and .list
};

/// Insertion-ordered; equal keys (1, 1.0 and true are) collapse.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int nesting = 1;
  size_t weight = 1;

  /// Adds or replaces. False when `key` cannot be one (lists, dicts).
  bool set(Value key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;

 private:
  std::unordered_map<std::string, size_t> index_;  // by hash_key
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

/// Something callable.
struct Macro;  // jinja_evaluator.h
struct Function {
  enum class Type : uint8_t { kGlobal, kMethod, kMacro, kJoiner, kCycler };
  Type type = Type::kGlobal;
  std::string name;
  Value self;                    // of a method; separator of a joiner; tuple of a cycler
  const Macro* macro = nullptr;  // in the arena
  mutable size_t uses = 0;       // joiner, cycler: state; only one render holds them
};

/// The variable `loop`.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth = 1;
  const void* recursive = nullptr;  // the statement, when `loop(...)` may be called
  void* frame = nullptr;            // where the statement stands
  mutable std::optional<std::vector<Value>> changed;  // arguments of the last loop.changed
};

/// The integer that decimal digits, with or without '-', say: of 64 bits if they hold it.
Value integer_of(std::string_view digits);
/// Python's int(value); nullopt for what is not finite.
std::optional<Value> whole_part(double value);
/// Nesting of the deepest part, 0 for scalars.
int nesting(const Value& value);
/// What walking over all parts costs, in steps of a render (shared parts count every time).
size_t weight(const Value& value);
size_t weight_of_bytes(size_t bytes);
/// a + b, at most SIZE_MAX.
size_t saturating_add(size_t a, size_t b);
/// A sequence of `items` with its nesting and weight.
std::shared_ptr<Sequence> make_sequence(Sequence::Form form, std::vector<Value> items);
bool truth(const Value& value);
/// Python's `==`.
bool equal(const Value& a, const Value& b);
/// Python's `<`; nullopt when the types have no order.
std::optional<bool> less(const Value& a, const Value& b);
/// Text under which equal keys meet; nullopt for what Python cannot hash.
std::optional<std::string> hash_key(const Value& key);

/// Type as Python names it, for messages: "int", "str", "dict".
std::string type_name(const Value& value);
/// Float as Python prints it.
std::string float_text(double value);
/// str(value).
Text to_text(const Value& value);
/// repr(value).
Text to_repr(const Value& value);

}  // namespace chimera::jinja
