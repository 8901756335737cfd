// The tokenizer in the metadata of a GGUF file, as Hugging Face's tokenizer.json and
// tokenizer_config.json would have it. Internal to GgufModel.
//
//   tokenizer.ggml.model  "gpt2": byte-level BPE, cut by the expression that tokenizer.ggml.pre
//   names
//                         "llama": SentencePiece BPE with byte fallback; its merges are those pairs
//                         of
//                                  pieces that make a piece, the best score first
//
// Thread safety: free function.
#pragma once

#include <map>
#include <string>

#include "backbone/gguf/gguf_file.h"
#include "base/status.h"

namespace chimera {

/// Adds "tokenizer.json" and, with special tokens or a chat template, "tokenizer_config.json" to
/// `files`; nothing when the file has no vocabulary. unimplemented names a model or a
/// pre-tokenizer that is not known; data_corrupt: lists that do not fit together.
Status gguf_vocabulary(const GgufMetadata& metadata, const std::string& label,
                       std::map<std::string, std::string, std::less<>>& files);

}  // namespace chimera
