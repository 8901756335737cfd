#include "text/tokenizer/stages/pattern.h"

namespace chimera::tokenizer {

Result<Regex> read_pattern(Fields& fields) {
  const Json* object = fields.object("pattern");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  Fields pattern(*object, fields.where() + ".pattern");
  const bool is_regex = pattern.has("Regex");
  const std::string text = pattern.string(is_regex ? "Regex" : "String");
  CHIMERA_RETURN_IF_ERROR(pattern.status());
  Result<Regex> regex = is_regex ? Regex::compile(text) : Regex::literal(text);
  if (!regex.ok()) return regex.status().with_context(pattern.where());
  return regex;
}

}  // namespace chimera::tokenizer
