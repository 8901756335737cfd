#include "base/json/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/quote.h"
#include "base/utf8.h"

namespace chimera {
namespace {

using Parsed = nlohmann::json;

/// Where the library's lexer is: it copies its iterators, so they share the position.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  /// Its copies move `*at` along. REQUIRES: it outlives them.
  explicit Cursor(const char** at) : at_(at) {}
  reference operator*() const { return **at_; }
  Cursor& operator++() {
    ++*at_;
    return *this;
  }
  bool operator==(const Cursor& other) const { return *at_ == *other.at_; }
  bool operator!=(const Cursor& other) const { return !(*this == other); }

 private:
  const char** at_;
};

Status corrupt(std::string_view text, size_t at, std::string_view what) {
  at = std::min(at, text.size());
  const std::string_view before = text.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column = newline == std::string_view::npos ? at + 1 : at - newline;
  return {Code::kDataCorrupt,
          fmt::format("JSON: {} at line {}, column {} (byte {})", what, line, column, at)};
}

bool is_integer(std::string_view number) {
  return number.find_first_of(".eE") == std::string_view::npos;
}

/// From the library's events to ours, within the limits.
class Adapter final : public nlohmann::json_sax<Parsed> {
 public:
  Adapter(std::string_view text, const JsonLimits& limits, JsonEvents& events)
      : text_(text), limits_(limits), events_(events) {}

  /// Where the library reads next.
  const char** at() { return &at_; }
  Status status() const { return status_; }

  bool null() override { return scalar({}); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t& spelling) override {
    return scalar(is_integer(spelling) ? Json::big_integer(spelling) : Json(value));
  }
  bool string(string_t& value) override { return scalar(std::string_view(value)); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool key(string_t& name) override {
    // A copy has no more room than it needs, and the library keeps its buffer.
    return events_.key(std::string(name.data(), name.size())) || refused();
  }
  bool start_object(std::size_t) override {
    return deeper() && (events_.open_object() || refused());
  }
  bool start_array(std::size_t) override { return deeper() && (events_.open_array() || refused()); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool parse_error(std::size_t position, const std::string&,
                   const Parsed::exception& error) override {
    constexpr int kOutOfRange = 406;
    if (error.id == kOutOfRange) return fail("number out of range");
    const std::optional<size_t> bad = find_invalid_utf8(text_);
    if (bad && *bad <= last()) return fail_at(*bad, "invalid UTF-8");
    // The library counts the end as a byte when it has to look at it.
    if (position > text_.size()) return fail_at(text_.size(), "the text ends early");
    return fail("syntax error");
  }

 private:
  /// Last byte that was read.
  size_t last() const {
    const auto read = static_cast<size_t>(at_ - text_.data());
    return read == 0 ? 0 : read - 1;
  }
  bool fail_at(size_t at, std::string_view what) {
    status_ = corrupt(text_, at, what);
    return false;
  }
  bool fail(std::string_view what) { return fail_at(last(), what); }
  bool refused() { return fail(events_.problem()); }

  bool count() {
    if (++values_ <= limits_.max_values) return true;
    return fail(fmt::format("more than {} values", limits_.max_values));
  }
  bool scalar(Json value) { return count() && (events_.scalar(std::move(value)) || refused()); }
  bool deeper() {
    if (++depth_ <= limits_.max_depth) return count();
    return fail(fmt::format("nested deeper than {} levels", limits_.max_depth));
  }
  bool end() {
    --depth_;
    return events_.close() || refused();
  }

  std::string_view text_;
  const JsonLimits& limits_;
  JsonEvents& events_;
  const char* at_ = text_.data();
  size_t depth_ = 0;
  size_t values_ = 0;
  Status status_;
};

/// Builds a Json.
class Builder final : public JsonEvents {
 public:
  explicit Builder(DuplicateKeys duplicates) : duplicates_(duplicates) {}

  Json take() { return std::move(root_); }

  bool scalar(Json value) override {
    place(std::move(value));
    return true;
  }
  bool key(std::string name) override {
    Open& object = open_.back();
    object.next = object.value->size() < kFewKeys ? object.value->find(name) : nullptr;
    if (object.next != nullptr) return repeated(name);
    object.next = &object.value->append(std::move(name), Json());
    return true;
  }
  bool open_object() override { return open(Json::object()); }
  bool open_array() override { return open(Json::array()); }
  bool close() override {
    Json& done = *open_.back().value;
    open_.pop_back();
    return done.items().size() < kFewKeys || check_keys(done);
  }
  const std::string& problem() const override { return problem_; }

 private:
  // More keys are compared once all are there, in the order of their spelling.
  static constexpr size_t kFewKeys = 32;

  struct Open {
    Json* value;
    Json* next = nullptr;  // of an object: the member whose value comes
  };

  /// A container does not change while one inside it is open, so pointers to values stay good.
  Json* place(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    Open& parent = open_.back();
    if (parent.next != nullptr) return &(*parent.next = std::move(value));
    parent.value->push_back(std::move(value));
    return parent.value->end() - 1;
  }

  bool open(Json value) {
    open_.push_back({place(std::move(value))});
    return true;
  }

  bool repeated(std::string_view name) {
    if (duplicates_ == DuplicateKeys::kLastCounts) return true;
    problem_ = "duplicate key " + quote(name);
    return false;
  }

  bool check_keys(Json& object) {
    const std::span<Json::Member> members = object.items();
    std::vector<uint32_t> order(members.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const int by_key = members[a].key.compare(members[b].key);
      return by_key != 0 ? by_key < 0 : a < b;
    });
    const auto twice = std::adjacent_find(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return members[a].key == members[b].key;
    });
    if (twice == order.end()) return true;
    if (!repeated(members[*twice].key)) return false;
    merge_repeated(object, order);
    return true;
  }

  /// Every key keeps its first place and its last value.
  static void merge_repeated(Json& object, const std::vector<uint32_t>& order) {
    const std::span<Json::Member> members = object.items();
    std::vector<bool> stays(members.size(), true);
    for (size_t first = 0; first < order.size();) {
      size_t last = first;
      while (last + 1 < order.size() && members[order[last + 1]].key == members[order[first]].key) {
        stays[order[++last]] = false;
      }
      if (last != first) members[order[first]].value = std::move(members[order[last]].value);
      first = last + 1;
    }
    Json merged = Json::object();
    for (size_t i = 0; i < members.size(); ++i) {
      if (stays[i]) merged.append(std::move(members[i].key), std::move(members[i].value));
    }
    object = std::move(merged);
  }

  const DuplicateKeys duplicates_;
  Json root_;
  std::vector<Open> open_;
  std::string problem_;
};

}  // namespace

Status read_json(std::string_view text, const JsonLimits& limits, JsonEvents& events) {
  if (text.size() > limits.max_bytes) {
    return {Code::kDataCorrupt,
            fmt::format("JSON of {} bytes; the limit is {}", text.size(), limits.max_bytes)};
  }
  // The library would skip the one and take the other for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF")) return corrupt(text, 0, "byte order mark");
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return corrupt(text, nul, "NUL byte");
  }
  Adapter adapter(text, limits, events);
  const char* end = text.data() + text.size();
  try {
    Parsed::sax_parse(Cursor(adapter.at()), Cursor(&end), &adapter);
  } catch (const std::exception&) {
    return {Code::kResourceExhausted, "JSON could not be held in memory", "send less at once"};
  }
  return adapter.status();
}

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  Builder builder(limits.duplicates);
  if (Status status = read_json(text, limits, builder); !status.ok()) return status;
  return builder.take();
}

}  // namespace chimera
