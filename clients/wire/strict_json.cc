#include "wire/strict_json.h"

#include <fmt/format.h>

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
