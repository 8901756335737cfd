#include "text/template/builtins/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json/reader.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

constexpr JsonLimits kLimits{.max_depth = 64, .max_values = 1'000'000};

bool is_plain_word(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

/// Builds values as they are read.
class Builder final : public JsonEvents {
 public:
  explicit Builder(Origin origin) : client_(origin == Origin::kClient) {}

  Value take() { return std::move(root_); }

  bool scalar(Json value) override {
    if (value.is_null()) return place(Value(None{}));
    if (const auto flag = value.boolean()) return place(Value(*flag));
    if (const auto integer = value.integer()) return place(Value(*integer));
    if (value.is_integer()) {  // beyond 64 bits, which a float would not hold
      const std::string* digits = value.big_integer();
      return place(integer_of(digits != nullptr ? *digits : std::to_string(*value.natural())));
    }
    if (const auto number = value.number()) return place(Value(*number));
    const std::string& text = *value.string();
    const bool role = !open_.empty() && open_.back().key == "role" && is_plain_word(text);
    return place(Value(Text(text, client_ && !role)));
  }
  bool open_object() override {
    open_.emplace_back().dict = std::make_shared<Dict>();
    return true;
  }
  bool open_array() override {
    open_.emplace_back();
    return true;
  }
  bool key(std::string name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool close() override {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.dict != nullptr)
      return place(Value(std::shared_ptr<const Dict>(std::move(done.dict))));
    auto list = make_sequence(Sequence::Form::kList, std::move(done.items));
    return place(Value(std::shared_ptr<const Sequence>(std::move(list))));
  }
  const std::string& problem() const override { return problem_; }

 private:
  struct Open {
    std::shared_ptr<Dict> dict;  // null: an array
    std::vector<Value> items;
    std::string key;
  };

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
  std::string problem_;  // never any: every JSON value is a value here
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
    if (const BigInteger* big = value.big()) return out_.append(big->digits);
    if (const Text* text = value.text()) {
      if (!run_.object_needed(value)) write_string(*text);
      return;
    }
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
    if (!key.is_none() && !key.is_number()) {
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
      const auto [letter, length] = decode_char(bytes, at);
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
  const Status status = read_json(json, kLimits, builder);
  if (status.ok()) return builder.take();
  const Code code = status.code() == Code::kDataCorrupt ? Code::kInvalidArgument : status.code();
  return Status(code, status.message() + " (expected one JSON value)", status.hint());
}

Text dump_json(Runtime& run, const Value& value, const JsonStyle& style) {
  if (!run.step(weight(value))) return {};
  Writer writer(run, style);
  writer.write(value);
  return writer.take();
}

}  // namespace chimera::jinja
