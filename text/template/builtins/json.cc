#include "text/template/builtins/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace chimera::jinja {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 1'000'000;

bool is_plain_word(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

/// Builds values while nlohmann reads; its own objects would lose the order of keys or find
/// duplicates in quadratic time.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(Origin origin) : client_(origin == Origin::kClient) {}

  Value take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return add(Value(None{})); }
  bool boolean(bool value) override { return add(Value(value)); }
  bool number_integer(number_integer_t value) override { return add(Value(int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return add(Value(static_cast<double>(value)));
    return add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t&) override { return add(Value(value)); }
  bool string(string_t& value) override {
    const bool role = !open_.empty() && open_.back().key == "role" && is_plain_word(value);
    return add(Value(Text(std::move(value), client_ && !role)));
  }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool key(string_t& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool end_array() override {
    auto made = make_sequence(Sequence::Form::kList, std::move(open_.back().items));
    open_.pop_back();
    return place(Value(std::shared_ptr<const Sequence>(std::move(made))));
  }
  bool end_object() override {
    std::shared_ptr<const Dict> made = std::move(open_.back().dict);
    open_.pop_back();
    return place(Value(std::move(made)));
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(fmt::format("syntax error at byte {}", position));
  }

 private:
  struct Open {
    std::shared_ptr<Dict> dict;  // null: an array
    std::vector<Value> items;
    std::string key;
  };

  bool fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }

  bool count() {
    return ++values_ <= kMaxValues || fail(fmt::format("more than {} values", kMaxValues));
  }

  bool open(bool object) {
    if (open_.size() >= kMaxDepth) return fail(fmt::format("nested deeper than {}", kMaxDepth));
    open_.emplace_back();
    if (object) open_.back().dict = std::make_shared<Dict>();
    return count();
  }

  bool add(Value value) { return count() && place(std::move(value)); }

  bool place(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Open& parent = open_.back(); parent.dict != nullptr) {
      const bool word = is_plain_word(parent.key);
      parent.dict->set(Value(Text(parent.key, client_ && !word)), std::move(value));
    } else {
      parent.items.push_back(std::move(value));
    }
    return true;
  }

  const bool client_;
  Value root_;
  std::vector<Open> open_;
  size_t values_ = 0;
  std::string problem_;
};

/// Writes values as JSON text.
class Writer {
 public:
  Writer(Runtime& run, const JsonStyle& style) : run_(run), style_(style) {}

  void write(const Value& value) {
    if (!run_.ok() || out_.size() > kMaxTextBytes) return;
    if (value.is_none()) return out_.append("null");
    if (const bool* flag = value.boolean()) return out_.append(*flag ? "true" : "false");
    if (const double* real = value.real()) return out_.append(number(*real));
    if (const auto integer = value.integer()) return out_.append(std::to_string(*integer));
    if (const Text* text = value.text()) return write_string(*text);
    if (const Dict* dict = value.dict()) return write_dict(*dict);
    const Sequence* sequence = value.sequence();
    const bool array = sequence != nullptr && (sequence->form == Sequence::Form::kList ||
                                               sequence->form == Sequence::Form::kTuple);
    if (array) return write_list(*sequence);
    run_.mismatch("tojson", value, "a value that JSON can hold");
  }

  Text take() { return std::move(out_); }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return float_text(value);
  }

  void line_break() {
    if (!style_.indent) return;
    out_.append("\n");
    for (size_t i = 0; i < depth_; ++i) out_.append(*style_.indent);
  }

  void write_list(const Sequence& list) {
    if (list.items.empty()) return out_.append("[]");
    out_.append("[");
    ++depth_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      line_break();
      write(list.items[i]);
    }
    --depth_;
    line_break();
    out_.append("]");
  }

  void write_dict(const Dict& dict) {
    if (dict.items.empty()) return out_.append("{}");
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& entry : dict.items) items.push_back(&entry);
    if (style_.sorted) {
      std::stable_sort(items.begin(), items.end(), [this](const auto* a, const auto* b) {
        return run_.less(a->first, b->first);
      });
    }
    out_.append("{");
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      line_break();
      write_key(items[i]->first);
      out_.append(style_.key_separator);
      write(items[i]->second);
    }
    --depth_;
    line_break();
    out_.append("}");
  }

  void write_key(const Value& key) {
    if (const Text* text = key.text()) return write_string(*text);
    if (!key.is_none() && !key.number()) {
      run_.mismatch("tojson", key, "a string or number as the key");
      return;
    }
    out_.append("\"");
    write(key);
    out_.append("\"");
  }

  void write_string(const Text& text) {
    out_.append("\"");
    const std::string& bytes = text.str();
    size_t plain = 0;  // begin of the bytes that go out as they are
    for (size_t at = 0; at < bytes.size();) {
      const auto [letter, length] = tokenizer::decode_char(bytes, at);
      const std::string escape = escape_of(letter);
      if (!escape.empty()) {
        out_.append(text, plain, at);
        out_.append_as(escape, text, at, at + length);
        plain = at + length;
      }
      at += length;
    }
    out_.append(text, plain, bytes.size());
    out_.append("\"");
  }

  std::string escape_of(uint32_t letter) const {
    static constexpr std::string_view kLetters = "\"\\\n\r\t\f\b", kNames = "\"\\nrtfb";
    if (letter < 0x80) {
      const size_t at = kLetters.find(static_cast<char>(letter));
      if (at != std::string_view::npos) return {'\\', kNames[at]};
    }
    if (letter < 0x20) return fmt::format("\\u{:04x}", letter);
    if (!style_.ascii || letter < 0x7F) return {};
    if (letter < 0x10000) return fmt::format("\\u{:04x}", letter);
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((letter - 0x10000) >> 10),
                       0xDC00 + ((letter - 0x10000) & 0x3FF));
  }

  Runtime& run_;
  const JsonStyle& style_;
  size_t depth_ = 0;
  Text out_;
};

}  // namespace

Result<Value> parse_json(std::string_view json, Origin origin) {
  Builder builder(origin);
  try {
    if (nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) return builder.take();
  } catch (const std::exception&) {
    return Status(Code::kResourceExhausted, "JSON: could not be held in memory", "send less");
  }
  return Status(Code::kInvalidArgument,
                fmt::format("JSON: {} (expected one JSON value)", builder.problem()));
}

Text dump_json(Runtime& run, const Value& value, const JsonStyle& style) {
  if (!run.step(weight(value))) return {};
  Writer writer(run, style);
  writer.write(value);
  return writer.take();
}

}  // namespace chimera::jinja
