// The pre-tokenizers that GGUF files name: what tokenizer.ggml.pre says, and the expressions of the
// tokenizers that it stands for (their tokenizer.json files).
//
// Thread safety: free functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json/json.h"

namespace chimera {

struct NamedPreTokenizer {
  Json json;                 // "pre_tokenizer" of tokenizer.json
  bool whole_words = false;  // "ignore_merges": a word of the vocabulary is not merged together
  bool begins_text = false;  // a beginning-of-text token unless the file says otherwise
};

/// Nothing for a name that is not known.
std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name);
/// "dbrx, deepseek-v3, …", for messages.
std::string pre_tokenizer_names();

}  // namespace chimera
