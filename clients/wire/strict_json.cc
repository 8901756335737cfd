#include "clients/wire/strict_json.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera::wire {
namespace {

using nlohmann::json;

/// Builds the value while counting; nlohmann's own builder keeps the last of two equal keys.
class Builder final : public nlohmann::json_sax<json> {
 public:
  json take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return fail("duplicate key " + quote(name));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(fmt::format("syntax error at byte {}", position));
  }

 private:
  bool fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }

  json* place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool add(json value) {
    if (++values_ > kMaxJsonValues) return fail(fmt::format("more than {} values", kMaxJsonValues));
    place(std::move(value));
    return true;
  }

  bool open(json value) {
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      return fail(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
    }
    if (++values_ > kMaxJsonValues) return fail(fmt::format("more than {} values", kMaxJsonValues));
    // The parent does not change while a child is open, so the pointer stays good.
    open_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> open_;
  std::string key_;
  std::string problem_;
  size_t values_ = 0;
};

}  // namespace

std::variant<json, Error> parse_strict(std::string_view text) {
  Builder builder;
  try {
    if (json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  } catch (const std::exception&) {
    return Error{"resource_exhausted", "request: could not be held in memory", "send less at once"};
  }
  return Error{"invalid_argument", "request: " + builder.problem() + " (expected one JSON object)",
               "see clients/PROTOCOL.md"};
}

namespace {

/// Behind the blanks at `at`.
size_t skip_blanks(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

/// Behind the string that begins at `at`.
size_t skip_string(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

/// Behind the value that begins at `at`.
size_t skip_value(std::string_view text, size_t at) {
  size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}')) break;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    ++at;
  }
  return at;
}

}  // namespace

std::string_view raw_member(std::string_view object, std::string_view name) {
  size_t at = skip_blanks(object, 0) + 1;  // {
  while (at < object.size()) {
    at = skip_blanks(object, at);
    if (at >= object.size() || object[at] != '"') break;
    const size_t key_end = skip_string(object, at);
    const json key = json::parse(object.substr(at, key_end - at), nullptr, false);
    const size_t begin = skip_blanks(object, skip_blanks(object, key_end) + 1);  // :
    const size_t end = skip_value(object, begin);
    if (key.is_string() && key.get_ref<const std::string&>() == name) {
      std::string_view value = object.substr(begin, end - begin);
      return value.substr(0, value.find_last_not_of(" \t\r\n") + 1);
    }
    at = end + 1;  // ,
  }
  return {};
}

std::string quote(std::string_view s) {
  constexpr size_t kLongest = 64;
  const bool cut = s.size() > kLongest;
  if (cut) {
    size_t end = kLongest;
    while (end > 0 && (static_cast<unsigned char>(s[end]) & 0xC0) == 0x80) --end;
    s = s.substr(0, end);
  }
  std::string out = "\"";
  for (const char c : s) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + (cut ? "…\"" : "\"");
}

std::string dump(const json& value) {
  return value.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

}  // namespace chimera::wire
