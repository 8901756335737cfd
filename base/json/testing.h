// What tests that read JSON share.
//
// Thread safety: pure functions.
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {

/// How failures show a value.
inline std::ostream& operator<<(std::ostream& out, const Json& value) {
  return out << write_json(value);
}

/// The value of `text`; a failure of the test and null when it is none.
inline Json json_of(std::string_view text) {
  Result<Json> value = parse_json(text);
  if (value.ok()) return std::move(*value);
  ADD_FAILURE() << value.status().message() << " in: " << text;
  return {};
}

/// The elements of a list of token ids, or of texts.
inline std::vector<int32_t> ids_of(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& id : list) out.push_back(static_cast<int32_t>(id.integer().value()));
  return out;
}
inline std::vector<std::string> texts_of(const Json& list) {
  std::vector<std::string> out;
  for (const Json& text : list) out.push_back(text.string() == nullptr ? "" : *text.string());
  return out;
}

}  // namespace chimera
