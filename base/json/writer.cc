#include "base/json/writer.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/utf8.h"

namespace chimera {
namespace {

void append_integer(auto value, std::string& out) {
  const fmt::format_int digits(value);
  out.append(digits.data(), digits.size());
}

/// "\n", "\"" …; empty when the character goes out as it is.
std::string_view short_escape(uint8_t byte) {
  switch (byte) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return {};
  }
}

void append_unicode_escape(uint32_t c, std::string& out) {
  if (c >= 0x10000) {
    append_unicode_escape(0xD800 + ((c - 0x10000) >> 10), out);
    c = 0xDC00 + ((c - 0x10000) & 0x3FF);
  }
  fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
}

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  std::string take() { return std::move(out_); }

  void write(const Json& value) {
    switch (value.kind()) {
      case Json::Kind::kNull:
        out_ += "null";
        break;
      case Json::Kind::kBoolean:
        out_ += *value.boolean() ? "true" : "false";
        break;
      case Json::Kind::kInteger:
        write_integer(value);
        break;
      case Json::Kind::kReal:
        append_json_number(*value.number(), out_);
        break;
      case Json::Kind::kString:
        append_json_string(*value.string(), out_, style_.ascii);
        break;
      case Json::Kind::kArray:
        write_array(value);
        break;
      case Json::Kind::kObject:
        write_object(value);
        break;
    }
  }

 private:
  void write_integer(const Json& value) {
    if (const auto number = value.integer()) return append_integer(*number, out_);
    if (const auto number = value.natural()) return append_integer(*number, out_);
    out_ += *value.big_integer();
  }

  void write_array(const Json& array) {
    out_ += '[';
    ++depth_;
    for (const Json& item : array) {
      next_line(&item != array.begin());
      write(item);
    }
    --depth_;
    if (!array.empty()) next_line(false);
    out_ += ']';
  }

  void write_object(const Json& object) {
    out_ += '{';
    ++depth_;
    bool first = true;
    for (const auto& [key, value] : object.items()) {
      next_line(!first);
      append_json_string(key, out_, style_.ascii);
      out_ += style_.indent < 0 ? ":" : ": ";
      write(value);
      first = false;
    }
    --depth_;
    if (!first) next_line(false);
    out_ += '}';
  }

  void next_line(bool comma) {
    if (comma) out_ += ',';
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(depth_ * static_cast<size_t>(style_.indent), ' ');
  }

  const JsonStyle& style_;
  std::string out_;
  size_t depth_ = 0;
};

}  // namespace

void append_json_number(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  // Plain up to 15 digits before the point and three zeros behind it, else with an exponent.
  const double magnitude = std::fabs(value);
  const bool plain = value == 0.0 || (magnitude >= 1e-4 && magnitude < 1e15);
  char digits[32];
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto [end, error] = std::to_chars(std::begin(digits), std::end(digits), value, format);
  const std::string_view text(digits, static_cast<size_t>(end - digits));
  out += text;
  if (plain && text.find('.') == std::string_view::npos) out += ".0";
}

void append_json_string(std::string_view text, std::string& out, bool ascii) {
  out += '"';
  size_t plain = 0;  // begin of the bytes that go out as they are
  for (size_t pos = 0; pos < text.size();) {
    const auto byte = static_cast<uint8_t>(text[pos]);
    if (byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\') {
      ++pos;
      continue;
    }
    size_t length = 0;
    const bool valid = scan_utf8(text, pos, length) == Utf8::kComplete;
    const bool control = byte < 0x20 || byte == '"' || byte == '\\';
    if (valid && !control && !ascii) {
      pos += length;
      continue;
    }
    out.append(text, plain, pos - plain);
    const uint32_t c = valid ? decode_char(text, pos).code_point : 0xFFFD;
    if (const std::string_view escape = short_escape(byte); !escape.empty()) {
      out += escape;
    } else if (control || ascii) {
      append_unicode_escape(c, out);
    } else {
      out += kReplacementCharacter;
    }
    pos += length;
    plain = pos;
  }
  out.append(text, plain, text.size() - plain);
  out += '"';
}

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(text, out);
  return out;
}

std::string write_json(const Json& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value);
  return writer.take();
}

}  // namespace chimera
