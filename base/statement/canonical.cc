#include "base/statement/canonical.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json/writer.h"

namespace chimera {
namespace {

/// In UTF-16 what is beyond the first plane begins with a surrogate, which sorts before U+E000.
int weight(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte >= 0xF0) return byte - 2;
  return byte >= 0xEE ? byte + 0x10 : byte;
}

bool before(std::string_view x, std::string_view y) {
  return std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end(),
                                      [](char a, char b) { return weight(a) < weight(b); });
}

/// ECMA-262, Number::toString, of a finite double.
void append_number(double value, std::string& out) {
  if (value == 0.0) {  // -0 too
    out += '0';
    return;
  }
  if (value < 0) out += '-';
  std::array<char, 32> buffer{};
  const auto end =
      std::to_chars(buffer.begin(), buffer.end(), std::abs(value), std::chars_format::scientific);
  const std::string_view text(buffer.data(), end.ptr);
  const size_t e = text.find('e');
  std::string digits(1, text.front());
  if (e > 2) digits += text.substr(2, e - 2);
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  const int count = static_cast<int>(digits.size()), point = exponent + 1;
  if (point > 21 || point <= -6) {
    out += digits.front();
    if (count > 1) out += "." + digits.substr(1);
    fmt::format_to(std::back_inserter(out), "e{}{}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (point >= count) {
    out += digits + std::string(static_cast<size_t>(point - count), '0');
  } else if (point > 0) {
    out += digits.substr(0, static_cast<size_t>(point)) + "." +
           digits.substr(static_cast<size_t>(point));
  } else {
    out += "0." + std::string(static_cast<size_t>(-point), '0') + digits;
  }
}

void append(const Json& value, std::string& out) {
  switch (value.kind()) {
    case Json::Kind::kReal:
      return append_number(*value.number(), out);
    case Json::Kind::kArray: {
      out += '[';
      const char* comma = "";
      for (const Json& item : value) {
        out += std::exchange(comma, ",");
        append(item, out);
      }
      out += ']';
      return;
    }
    case Json::Kind::kObject: {
      std::vector<const Json::Member*> members;
      for (const Json::Member& member : value.items()) members.push_back(&member);
      std::sort(members.begin(), members.end(),
                [](const auto* x, const auto* y) { return before(x->key, y->key); });
      out += '{';
      const char* comma = "";
      for (const Json::Member* member : members) {
        out += std::exchange(comma, ",");
        append_json_string(member->key, out);
        out += ':';
        append(member->value, out);
      }
      out += '}';
      return;
    }
    case Json::Kind::kNull:
    case Json::Kind::kBoolean:
    case Json::Kind::kInteger:
    case Json::Kind::kString:
      out += write_json(value);
  }
}

}  // namespace

std::string canonical_json(const Json& value) {
  std::string out;
  append(value, out);
  return out;
}

}  // namespace chimera
