// What one render has: its budget, the first error, and the making of values within both.
//
// After the first error every function of the interpreter returns at once with some value, so that
// callers need to look only where they loop. Budgets: kMaxSteps of work (a node, an item, 32 bytes
// looked at each count one), kMaxAllocated bytes of values made, kMaxTextBytes for one string.
//
// Thread safety: one thread; a render makes its own.
#pragma once

#include <cstdint>
#include <ctime>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/template/value/value.h"

namespace chimera::jinja {

/// About a second of work; a conversation of a thousand turns takes a few hundred thousand steps.
inline constexpr size_t kMaxSteps = 10'000'000;
inline constexpr size_t kMaxAllocated = size_t{256} << 20;
/// The sandbox of Jinja refuses longer ranges as well.
inline constexpr int64_t kMaxRange = 100'000;

/// Arguments of a call, evaluated.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Texts that are JSON objects, as the arguments of tool calls in OpenAI's own shape. The render
/// fails where a template uses one as the object (Runtime::object_needed).
using EncodedObjects = std::unordered_set<const Text*>;

class Runtime {
 public:
  /// `encoded` is borrowed; null for none.
  explicit Runtime(const std::tm& now, size_t max_steps = kMaxSteps,
                   const EncodedObjects* encoded = nullptr)
      : now_(now), max_steps_(max_steps), encoded_(encoded) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  const std::tm& now() const { return now_; }  // local time of strftime_now
  /// Line of the template that errors are placed at.
  void at(int line) { line_ = line; }
  int line() const { return line_; }

  /// Records the first error as invalid_argument at the current line; returns undefined.
  Value fail(std::string_view message, Code code = Code::kInvalidArgument);
  /// Fails because `value` is undefined (saying why) or of the wrong type for `what`.
  Value mismatch(std::string_view what, const Value& value, std::string_view expected);
  /// To be asked where a template would look into an object (its members, its keys, its JSON):
  /// fails and is true when `value` is one of the encoded ones.
  bool object_needed(const Value& value) {
    return encoded_ != nullptr && value.text() != nullptr && needs_decoding(*value.text());
  }
  /// Takes `count` steps of the budget; false when it is spent or something failed before.
  bool step(size_t count = 1);
  /// The same for memory.
  bool allocate(size_t bytes);

  Value string(Text text);
  Value string(std::string text) { return string(Text(std::move(text))); }
  Value make(Sequence::Form form, std::vector<Value> items);
  Value list(std::vector<Value> items) { return make(Sequence::Form::kList, std::move(items)); }
  Value tuple(std::vector<Value> items) { return make(Sequence::Form::kTuple, std::move(items)); }
  Value iterator(std::vector<Value> items) {
    return make(Sequence::Form::kIterator, std::move(items));
  }
  /// Adds to a dict that is being made; fails for keys that cannot be.
  void set(Dict& dict, Value key, Value value);
  Value dict(std::shared_ptr<Dict> made);
  Namespace* name_space();

  bool equal(const Value& a, const Value& b);
  /// Python's `<`; fails when the types have no order.
  bool less(const Value& a, const Value& b);
  /// str(value)
  Text text(const Value& value);
  /// The text of a string; fails for anything else, naming `what`.
  const Text& need_text(const Value& value, std::string_view what);
  int64_t need_integer(const Value& value, std::string_view what);
  /// Everything that `for` would visit. Consumes an iterator.
  std::vector<Value> items(const Value& value, std::string_view what);

 private:
  bool needs_decoding(const Text& text);

  const std::tm now_;
  const size_t max_steps_;
  const EncodedObjects* const encoded_;
  int line_ = 1;
  size_t steps_ = 0, allocated_ = 0;
  std::deque<Namespace> spaces_;
  Status status_;
};

/// Arguments of a built-in function by the names of its parameters.
class Bound {
 public:
  /// Fails when there are too many arguments, an unknown one, or fewer than `required`.
  Bound(Runtime& run, std::string_view function, const CallArgs& args,
        std::initializer_list<std::string_view> parameters, size_t required = 0);

  bool ok() const { return run_.ok(); }
  bool has(size_t i) const { return i < values_.size() && values_[i] != nullptr; }
  /// Undefined when absent.
  const Value& operator[](size_t i) const;
  bool flag(size_t i, bool fallback) const { return has(i) ? truth(*values_[i]) : fallback; }
  int64_t integer(size_t i, int64_t fallback) const;
  /// Present and not none.
  bool given(size_t i) const { return has(i) && !values_[i]->is_none(); }
  const Text& text(size_t i) const;

 private:
  Runtime& run_;
  std::string function_;
  std::vector<const Value*> values_;
};

}  // namespace chimera::jinja
