// Fuzz target: a tokenizer.json, a NUL byte, a text. Whatever loads must encode the text or refuse
// it, must not produce a special token from it, and must stream what it decodes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  const std::string_view json = input.substr(0, nul);
  const std::string_view text =
      nul == std::string_view::npos ? std::string_view() : input.substr(nul + 1);
  const auto tokenizer = chimera::Tokenizer::parse(json, "fuzz");
  if (!tokenizer.ok()) return 0;
  for (const bool match_special : {false, true}) {
    const auto ids =
        (*tokenizer)
            ->encode(text, {.add_special_tokens = match_special, .match_special = match_special});
    if (!ids.ok()) continue;
    const auto decoded = (*tokenizer)->decode(*ids, false);
    if (!decoded.ok()) std::abort();
    chimera::StreamDecoder stream(*tokenizer, false);
    std::string streamed;
    for (const int32_t id : *ids) streamed += stream.push(id);
    if (streamed + stream.flush() != *decoded) std::abort();
  }
  return 0;
}
