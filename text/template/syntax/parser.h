// Tokens to the tree of a template; Jinja's grammar with the extensions that Hugging Face switches
// on (loop controls, generation blocks). Template inheritance and imports are refused by name: a
// chat template is one file.
//
// Thread safety: pure function; the result is immutable.
#pragma once

#include <string_view>

#include "base/status.h"
#include "text/template/syntax/ast.h"

namespace chimera::jinja {

struct ParsedTemplate {
  Body body;
  std::vector<std::string> names;  // by Symbol
};

/// data_corrupt with the line, unimplemented for a tag that is not supported.
Result<ParsedTemplate> parse_template(std::string_view source);

}  // namespace chimera::jinja
