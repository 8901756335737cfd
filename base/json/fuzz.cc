// Fuzz target of the JSON reader and writer, with nlohmann's own document as an independent
// reference: both accept the same texts and see the same values in them, and what is written reads
// back as it was.
#include <bit>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json/reader.h"
#include "base/json/writer.h"

namespace {

using chimera::Json;
using Reference = nlohmann::json;

[[noreturn]] void differ() { std::abort(); }

bool same(const Json& ours, const Reference& theirs);

bool same_integer(const Json& ours, const Reference& theirs) {
  if (const auto number = ours.integer()) {
    return theirs.is_number_integer() && theirs.get<int64_t>() == *number &&
           (*number >= 0 || !theirs.is_number_unsigned());
  }
  if (const auto number = ours.natural()) {
    return theirs.is_number_unsigned() && theirs.get<uint64_t>() == *number;
  }
  // An integer of more than 64 bits is a double over there.
  return theirs.is_number_float() && theirs.get<double>() == *ours.number();
}

bool same_items(const Json& ours, const Reference& theirs) {
  if (ours.size() != theirs.size()) return false;
  if (ours.is_array()) {
    for (size_t i = 0; i < ours.size(); ++i) {
      if (!same(ours[i], theirs[i])) return false;
    }
  }
  for (const auto& [key, value] : ours.items()) {
    const auto other = theirs.find(key);
    if (other == theirs.end() || !same(value, *other)) return false;
  }
  return true;
}

bool same(const Json& ours, const Reference& theirs) {
  switch (ours.kind()) {
    case Json::Kind::kNull:
      return theirs.is_null();
    case Json::Kind::kBoolean:
      return theirs.is_boolean() && theirs.get<bool>() == *ours.boolean();
    case Json::Kind::kInteger:
      return same_integer(ours, theirs);
    case Json::Kind::kReal:
      return theirs.is_number_float() && std::bit_cast<uint64_t>(theirs.get<double>()) ==
                                             std::bit_cast<uint64_t>(*ours.number());
    case Json::Kind::kString:
      return theirs.is_string() && theirs.get_ref<const std::string&>() == *ours.string();
    case Json::Kind::kArray:
      return theirs.is_array() && same_items(ours, theirs);
    case Json::Kind::kObject:
      return theirs.is_object() && same_items(ours, theirs);
  }
  return false;
}

void check_round_trip(const Json& value, const chimera::JsonLimits& limits) {
  const std::string once = chimera::write_json(value);
  const auto again = chimera::parse_json(once, limits);
  if (!again.ok() || *again != value || chimera::write_json(*again) != once) differ();
  if (!same(value, Reference::parse(once))) differ();
  for (const chimera::JsonStyle& style : {chimera::JsonStyle{.indent = 2}, {.ascii = true}}) {
    const auto styled = chimera::parse_json(chimera::write_json(value, style), limits);
    if (!styled.ok() || *styled != value) differ();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const chimera::JsonLimits limits{.max_depth = 256,
                                   .duplicates = chimera::DuplicateKeys::kLastCounts};
  const auto ours = chimera::parse_json(text, limits);
  const auto strict = chimera::parse_json(text, {.max_depth = 256});
  if (strict.ok() && (!ours.ok() || *strict != *ours)) differ();
  if (!ours.ok() && ours.status().message().empty()) differ();
  // The reference takes a NUL byte for the end and skips a byte order mark.
  if (text.find('\0') != std::string_view::npos || text.starts_with("\xEF\xBB\xBF")) {
    if (ours.ok()) differ();
    return 0;
  }
  const Reference theirs = Reference::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!ours.ok()) {
    const bool deep = ours.status().message().find("deeper") != std::string::npos;
    if (!deep && !theirs.is_discarded()) differ();
    return 0;
  }
  if (theirs.is_discarded() || !same(*ours, theirs)) differ();
  check_round_trip(*ours, limits);
  return 0;
}
