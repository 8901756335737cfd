// Fuzz target: a template, a NUL byte, variables as JSON. Whatever parses must render or fail
// within its bounds, the same way twice, as valid UTF-8 with sound marks.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/template/builtins/json.h"
#include "text/template/template.h"
#include "text/unicode.h"

namespace {

void check(const chimera::jinja::Rendered& rendered) {
  if (chimera::find_invalid_utf8(rendered.text)) std::abort();
  size_t at = 0;
  for (const chimera::TextSpan& span : rendered.client_text) {
    if (span.begin < at || span.end <= span.begin || span.end > rendered.text.size()) std::abort();
    at = span.end;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera::jinja;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  const auto parsed = Template::parse(input.substr(0, nul));
  if (!parsed.ok()) return 0;
  const std::string_view json =
      nul == std::string_view::npos ? std::string_view("{}") : input.substr(nul + 1);
  const auto variables = parse_json(json, Origin::kClient);
  if (!variables.ok() || variables->dict() == nullptr) return 0;
  constexpr size_t kSteps = 50'000;  // keeps runaway loops from slowing the search down
  const auto first = (*parsed)->render(*variables->dict(), std::tm{}, kSteps);
  const auto second = (*parsed)->render(*variables->dict(), std::tm{}, kSteps);
  if (first.ok() != second.ok()) std::abort();
  if (!first.ok()) return 0;
  check(*first);
  if (first->text != second->text || first->client_text != second->client_text) std::abort();
  return 0;
}
