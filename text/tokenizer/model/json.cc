#include "text/tokenizer/model/json.h"

#include <fmt/format.h>

#include "base/json/field_value.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

const Json& empty_array() {
  static const Json kEmpty = Json::array();
  return kEmpty;
}

const Json& empty_object() {
  static const Json kEmpty = Json::object();
  return kEmpty;
}

Problem problem(const std::string& where, std::string_view message) {
  return {fmt::format("{}: {}", where.empty() ? "top level" : where, message),
          "use the tokenizer.json as Hugging Face tokenizers wrote it", Code::kDataCorrupt};
}

class TokenizerWording : public Wording {
 public:
  static const TokenizerWording& get() {
    static const TokenizerWording kWording;
    return kWording;
  }
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return problem(path, fmt::format("{} (expected {})", found, expected));
  }
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override {
    return problem(path, fmt::format("\"{}\" is missing (expected {})", key, expected));
  }
  // Members that no reader asks for belong to versions of the library that it writes them for.
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view>) const override {
    return problem(path, fmt::format("\"{}\" is unknown", key));
  }
  std::string map() const override { return "an object"; }
};

}  // namespace

Fields::Fields(const Json& value, std::string where)
    : value_(value),
      reader_(field_value(value), std::move(where), TokenizerWording::get(), problems_) {}

void Fields::fail(const std::string& message) { reader_.fail(problem(where(), message)); }

bool Fields::has(std::string_view key) const {
  const std::optional<FieldValue> value = reader_.at().find(key);
  return value && !value->is_null();
}

std::optional<FieldValue> Fields::expect(std::string_view key, std::string_view wanted) {
  const std::optional<FieldValue> value = reader_.find(key, FieldReader::kRequired, wanted);
  if (!value || !value->is_null()) return value;
  reader_.bad(key, *value, wanted);
  return std::nullopt;
}

std::string Fields::string(std::string_view key) {
  constexpr std::string_view kWanted = "a string";
  const std::optional<FieldValue> value = expect(key, kWanted);
  if (!value) return {};
  const std::optional<std::string_view> text = value->text();
  if (!text) reader_.bad(key, *value, kWanted);
  return std::string(text.value_or(""));
}

std::string Fields::string_or(std::string_view key, std::string_view fallback) {
  return has(key) ? string(key) : std::string(fallback);
}

bool Fields::boolean(std::string_view key) {
  bool flag = false;
  if (expect(key, "true or false")) reader_.boolean(key, flag);
  return flag;
}

bool Fields::boolean_or(std::string_view key, bool fallback) {
  return has(key) ? boolean(key) : fallback;
}

int64_t Fields::integer(std::string_view key, int64_t max) {
  int64_t number = 0;
  if (const std::optional<FieldValue> value = expect(key, "a whole number"))
    reader_.read(*value, key, IntRange{key, 0, max}, number);
  return number;
}

uint32_t Fields::character(std::string_view key) {
  constexpr std::string_view kWanted = "exactly one character";
  const std::optional<FieldValue> value = expect(key, kWanted);
  if (!value) return 0;
  const std::string_view text = value->text().value_or("");
  if (text.empty() || char_length(text[0]) != text.size()) {
    reader_.bad(key, *value, kWanted);
    return 0;
  }
  return decode_char(text, 0).code_point;
}

const Json* Fields::array(std::string_view key) {
  constexpr std::string_view kWanted = "an array";
  const std::optional<FieldValue> value = expect(key, kWanted);
  if (value && value->is_list()) return value_.find(key);
  if (value) reader_.bad(key, *value, kWanted);
  return &empty_array();
}

const Json* Fields::object(std::string_view key) {
  const std::optional<FieldValue> value = expect(key, "an object");
  if (value && value->is_map()) return value_.find(key);
  if (value) reader_.bad(key, *value, "an object");
  return &empty_object();
}

Status unsupported_component(std::string_view where, std::string_view found,
                             std::string_view supported) {
  return Status(Code::kUnimplemented, fmt::format("{}: type \"{}\" is not supported", where, found),
                fmt::format("supported: {}", supported));
}

}  // namespace chimera::tokenizer
