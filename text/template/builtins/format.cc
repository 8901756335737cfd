#include "text/template/builtins/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

constexpr int64_t kMaxWidth = 10'000;
constexpr int64_t kMaxPrecision = 300;

/// How one value is laid out.
struct Layout {
  std::string fill = " ";
  char align = 0;   // < > ^ or =; 0: by type
  char sign = '-';  // '-', '+' or ' '
  bool alternate = false;
  char group = 0;  // ',' or '_'
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

std::string printed(const char* format, int precision, double value) {
  const int size = std::snprintf(nullptr, 0, format, precision, value);
  std::string out(static_cast<size_t>(std::max(size, 0)) + 1, '\0');
  std::snprintf(out.data(), out.size(), format, precision, value);
  out.pop_back();
  return out;
}

/// Digits of a float without its sign.
std::string real_digits(double value, const Layout& layout) {
  const double magnitude = std::abs(value);
  const auto precision = static_cast<int>(layout.precision < 0 ? 6 : layout.precision);
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : "inf";
  switch (layout.type) {
    case 'e':
      return printed("%.*e", precision, magnitude);
    case 'E':
      return printed("%.*E", precision, magnitude);
    case 'f':
    case 'F':
      return printed("%.*f", precision, magnitude);
    case '%':
      return printed("%.*f", precision, magnitude * 100) + "%";
    case 'g':
    case 'G':
      return printed(layout.type == 'g' ? "%.*g" : "%.*G", precision, magnitude);
    default:
      break;
  }
  if (layout.precision < 0) return float_text(magnitude);
  std::string out = printed("%.*g", precision, magnitude);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string integer_digits(int64_t value, const Layout& layout) {
  const uint64_t magnitude =
      value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  switch (layout.type) {
    case 'x':
      return (layout.alternate ? "0x" : "") + fmt::format("{:x}", magnitude);
    case 'X':
      return (layout.alternate ? "0X" : "") + fmt::format("{:X}", magnitude);
    case 'o':
      return (layout.alternate ? "0o" : "") + fmt::format("{:o}", magnitude);
    case 'b':
      return (layout.alternate ? "0b" : "") + fmt::format("{:b}", magnitude);
    default:
      return std::to_string(magnitude);
  }
}

/// Separators every three digits in front of the point.
void group_digits(std::string& digits, char separator) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = end; at > 3; at -= 3) digits.insert(at - 3, 1, separator);
}

void append_padded(Text& out, const Text& body, const Layout& layout, char default_align,
                   size_t sign_size) {
  const auto size = static_cast<int64_t>(character_count(body.str()));
  const int64_t missing = std::max<int64_t>(layout.width - size, 0);
  const char align = layout.align != 0 ? layout.align : default_align;
  const int64_t left = align == '>' || align == '=' ? missing : (align == '^' ? missing / 2 : 0);
  if (align == '=') out.append(body, 0, sign_size);
  for (int64_t i = 0; i < left; ++i) out.append(layout.fill);
  out.append(body, align == '=' ? sign_size : 0, body.size());
  for (int64_t i = left; i < missing; ++i) out.append(layout.fill);
}

void append_number(Runtime& run, Text& out, const Value& value, const Layout& layout) {
  static constexpr std::string_view kRealTypes = "eEfFgG%";
  const bool real_type = layout.type != 0 && kRealTypes.find(layout.type) != std::string::npos;
  std::string digits;
  bool negative = false;
  if (value.integer() && !real_type) {
    negative = *value.integer() < 0;
    digits = integer_digits(*value.integer(), layout);
  } else if (const BigInteger* big = value.big();
             big != nullptr && layout.type != 'c' &&
             (layout.type == 0 || std::string_view("diu").find(layout.type) != std::string::npos)) {
    negative = big->negative();
    digits = big->digits.substr(negative ? 1 : 0);
  } else if (value.number()) {
    negative = std::signbit(*value.number());
    digits = real_digits(*value.number(), layout);
  } else {
    run.mismatch("format", value, "a number");
    return;
  }
  if (layout.group != 0) group_digits(digits, layout.group);
  const std::string sign = negative ? "-" : (layout.sign == '-' ? "" : std::string(1, layout.sign));
  append_padded(out, Text(sign + digits), layout, '>', sign.size());
}

void append_string(Text& out, const Text& text, const Layout& layout) {
  const size_t end = layout.precision < 0
                         ? text.size()
                         : character_offset(text.str(), static_cast<size_t>(layout.precision));
  append_padded(out, text.slice(0, end), layout, '<', 0);
}

/// Reads a decimal number at `at`, moving it; -1 when there is none.
int64_t read_count(std::string_view text, size_t& at) {
  int64_t value = -1;
  const auto parsed = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (parsed.ec == std::errc::invalid_argument || (at < text.size() && text[at] == '-')) return -1;
  at = static_cast<size_t>(parsed.ptr - text.data());
  return parsed.ec == std::errc() ? value : INT64_MAX;
}

bool too_large(Runtime& run, const Layout& layout) {
  if (layout.width <= kMaxWidth && layout.precision <= kMaxPrecision) return false;
  run.fail(
      fmt::format("format: a width above {} or a precision above {}", kMaxWidth, kMaxPrecision));
  return true;
}

/// One run of "%" formatting.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& run, const Text& format, const Value& arguments)
      : run_(run), format_(format), bytes_(format.str()), arguments_(arguments) {
    const Sequence* tuple = arguments.sequence();
    if (tuple != nullptr && tuple->form == Sequence::Form::kTuple) tuple_ = tuple;
  }

  Value format() {
    while (at_ < bytes_.size() && run_.ok() && out_.size() <= kMaxTextBytes) {
      const size_t percent = std::min(bytes_.find('%', at_), bytes_.size());
      out_.append(format_, at_, percent);
      at_ = percent + 1;
      if (percent < bytes_.size()) conversion();
    }
    const bool all_used =
        tuple_ != nullptr ? used_ == tuple_->items.size() : used_ == 1 || arguments_.dict();
    if (run_.ok() && !all_used) return run_.fail("%: not all arguments are used by the format");
    return run_.string(std::move(out_));
  }

 private:
  Value argument() {
    if (tuple_ == nullptr && used_++ == 0) return arguments_;
    if (tuple_ != nullptr && used_ < tuple_->items.size()) return tuple_->items[used_++];
    return run_.fail("%: too few arguments for the format");
  }

  Value named_argument() {
    const size_t close = bytes_.find(')', at_);
    if (close == std::string_view::npos) return run_.fail("%: the name is not closed");
    const Text name = format_.slice(at_ + 1, close);
    at_ = close + 1;
    if (arguments_.dict() == nullptr) return run_.mismatch("%", arguments_, "a dict");
    const Value* held = arguments_.dict()->find(name.str());
    if (held == nullptr) return run_.fail(fmt::format("%: the dict has no '{}'", name.str()));
    return *held;
  }

  Layout read_layout() {
    Layout layout;
    for (; at_ < bytes_.size(); ++at_) {
      const char c = bytes_[at_];
      if (c == '-') {
        layout.align = '<';
      } else if (c == '0') {
        if (layout.align != '<') layout.align = '=', layout.fill = "0";
      } else if (c == '+' || (c == ' ' && layout.sign != '+')) {
        layout.sign = c;
      } else if (c == '#') {
        layout.alternate = true;
      } else if (c != ' ') {
        break;
      }
    }
    layout.width = std::max<int64_t>(read_count(bytes_, at_), 0);
    if (at_ < bytes_.size() && bytes_[at_] == '.') {
      ++at_;
      layout.precision = std::max<int64_t>(read_count(bytes_, at_), 0);
    }
    layout.type = at_ < bytes_.size() ? bytes_[at_++] : 0;
    return layout;
  }

  void conversion() {
    std::optional<Value> named;
    if (at_ < bytes_.size() && bytes_[at_] == '(') named = named_argument();
    Layout layout = read_layout();
    if (too_large(run_, layout)) return;
    if (layout.type == '%') return out_.append("%");
    const Value value = named ? *named : argument();
    if (!run_.ok()) return;
    if (layout.align == '=' && (layout.type == 's' || layout.type == 'r')) {
      layout.align = '>';
      layout.fill = " ";
    }
    if (layout.align == 0) layout.align = '>';
    convert(value, layout);
  }

  void convert(const Value& value, Layout& layout) {
    switch (layout.type) {
      case 's':
        return append_string(out_, run_.text(value), layout);
      case 'r':
        return append_string(out_, run_.step(weight(value)) ? to_repr(value) : Text(), layout);
      case 'd':
      case 'i':
      case 'u': {
        layout.type = 'd';
        const auto whole = value.real() != nullptr ? whole_part(*value.real()) : std::nullopt;
        return append_number(run_, out_, whole ? *whole : value, layout);
      }
      case 'x':
      case 'X':
      case 'o':
        if (!value.integer()) return void(run_.mismatch("%", value, "an integer"));
        [[fallthrough]];
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return append_number(run_, out_, value, layout);
      default:
        run_.fail("%: unsupported conversion (expected one of s r d i x o e f g)");
    }
  }

  Runtime& run_;
  const Text& format_;
  std::string_view bytes_;
  const Value& arguments_;
  const Sequence* tuple_ = nullptr;
  size_t at_ = 0, used_ = 0;
  Text out_;
};

/// One run of str.format.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& run, const Text& format, const CallArgs& args)
      : run_(run), format_(format), bytes_(format.str()), args_(args) {}

  Value format() {
    size_t at = 0;
    while (at < bytes_.size() && run_.ok() && out_.size() <= kMaxTextBytes) {
      const size_t brace = std::min(bytes_.find_first_of("{}", at), bytes_.size());
      out_.append(format_, at, brace);
      if (brace == bytes_.size()) break;
      const bool doubled = brace + 1 < bytes_.size() && bytes_[brace + 1] == bytes_[brace];
      if (doubled) {
        out_.append(format_, brace, brace + 1);
        at = brace + 2;
      } else if (bytes_[brace] == '}') {
        return run_.fail("format: single '}' in the format");
      } else {
        at = field(brace + 1);
      }
    }
    return run_.string(std::move(out_));
  }

 private:
  /// Formats the field that begins at `begin`; returns where the text goes on.
  size_t field(size_t begin) {
    const size_t close = bytes_.find('}', begin);
    if (close == std::string_view::npos) {
      run_.fail("format: a field is not closed");
      return bytes_.size();
    }
    const std::string_view inside = bytes_.substr(begin, close - begin);
    if (inside.find('{') != std::string_view::npos) {
      run_.fail("format: nested fields are not supported");
      return bytes_.size();
    }
    const size_t colon = std::min(inside.find(':'), inside.size());
    std::string_view name = inside.substr(0, colon);
    char conversion = 0;
    if (const size_t mark = name.rfind('!'); mark != std::string_view::npos) {
      conversion = mark + 2 == name.size() ? name[mark + 1] : '?';
      name = name.substr(0, mark);
    }
    const Value value = look_up(name);
    const Layout layout = read_layout(colon < inside.size() ? inside.substr(colon + 1) : "");
    if (run_.ok() && !too_large(run_, layout)) append(value, conversion, layout);
    return close + 1;
  }

  void append(const Value& value, char conversion, const Layout& layout) {
    if (conversion == 'r') {
      return append_string(out_, run_.step(weight(value)) ? to_repr(value) : Text(), layout);
    }
    const bool as_text = layout.type == 's' || conversion == 's' || !value.is_number() ||
                         (value.boolean() != nullptr && layout.type == 0);
    if (!as_text) return append_number(run_, out_, value, layout);
    if (layout.type != 0 && layout.type != 's') {
      run_.mismatch("format", value, "a number");
      return;
    }
    append_string(out_, run_.text(value), layout);
  }

  Value look_up(std::string_view name) {
    const size_t head_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, head_end));
    size_t at = head_end;
    while (at < name.size() && run_.ok()) {
      const bool subscript = name[at] == '[';
      const size_t end = subscript ? std::min(name.find(']', at), name.size())
                                   : std::min(name.find_first_of(".[", at + 1), name.size());
      const std::string part(name.substr(at + 1, end - at - 1));
      size_t digits_end = 0;
      const int64_t index = subscript ? read_count(part, digits_end) : -1;
      const bool is_index = index >= 0 && digits_end == part.size();
      value = subscript ? item(run_, value, is_index ? Value(index) : Value::string(part))
                        : attribute(run_, value, part);
      at = subscript ? end + 1 : end;
    }
    if (value.is_undefined()) run_.mismatch("format", value, "");
    return value;
  }

  Value argument(std::string_view name) {
    size_t end = 0;
    int64_t index = name.empty() ? next_++ : read_count(name, end);
    if (name.empty() || (index >= 0 && end == name.size())) {
      if (index < static_cast<int64_t>(args_.positional.size())) {
        return args_.positional[static_cast<size_t>(index)];
      }
      return run_.fail(fmt::format("format: no argument {}", index));
    }
    for (const auto& [key, value] : args_.named) {
      if (key == name) return value;
    }
    return run_.fail(fmt::format("format: no argument '{}'", name));
  }

  Layout read_layout(std::string_view spec) {
    static constexpr std::string_view kAligns = "<>^=";
    Layout layout;
    size_t at = 0;
    const size_t first = spec.empty() ? 0 : char_length(spec[0]);
    if (first < spec.size() && kAligns.find(spec[first]) != std::string_view::npos) {
      layout.fill = std::string(spec.substr(0, first));
      layout.align = spec[first];
      at = first + 1;
    } else if (!spec.empty() && kAligns.find(spec[0]) != std::string_view::npos) {
      layout.align = spec[0];
      at = 1;
    }
    const auto take = [&](std::string_view any) {
      return at < spec.size() && any.find(spec[at]) != std::string_view::npos ? spec[at++] : '\0';
    };
    if (const char sign = take("+- ")) layout.sign = sign;
    layout.alternate = take("#") != 0;
    if (take("0") != 0 && layout.align == 0) layout.align = '=', layout.fill = "0";
    layout.width = std::max<int64_t>(read_count(spec, at), 0);
    layout.group = take(",_");
    if (take(".") != 0) layout.precision = std::max<int64_t>(read_count(spec, at), 0);
    layout.type = take("bdeEfFgGosxX%");
    if (at != spec.size()) run_.fail("format: unsupported format specification");
    return layout;
  }

  Runtime& run_;
  const Text& format_;
  std::string_view bytes_;
  const CallArgs& args_;
  int64_t next_ = 0;
  Text out_;
};

}  // namespace

Value percent_format(Runtime& run, const Text& format, const Value& arguments) {
  return PercentFormatter(run, format, arguments).format();
}

Value brace_format(Runtime& run, const Text& format, const CallArgs& args) {
  return BraceFormatter(run, format, args).format();
}

double rounded(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    // printf rounds the exact binary value correctly, halves to even.
    return std::strtod(printed("%.*f", static_cast<int>(digits), value).c_str(), nullptr);
  }
  const double power = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / power) * power;
}

}  // namespace chimera::jinja
