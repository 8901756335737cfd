// Tokenizer and chat template of a checkpoint, from the files beside its weights or from the
// metadata of its GGUF file.
//
// Thread safety: free functions; what they give is immutable.
#pragma once

#include <memory>
#include <string>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

/// Null when the checkpoint has none. Errors of Tokenizer::parse and Checkpoint::side_file.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const Checkpoint& checkpoint);

/// Null when the checkpoint has none. Errors as of ChatTemplate::parse.
Result<std::shared_ptr<const ChatTemplate>> load_chat_template(const Checkpoint& checkpoint);
/// From a file in the place of the checkpoint's own, with the checkpoint's special tokens. Errors as
/// of read_file and ChatTemplate::parse, and invalid_argument for a file without any text.
Result<std::shared_ptr<const ChatTemplate>> load_chat_template(const Checkpoint& checkpoint,
                                                               const std::string& file);

}  // namespace chimera
