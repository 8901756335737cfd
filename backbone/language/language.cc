#include "backbone/language/language.h"

#include "base/io/env.h"

namespace chimera {
namespace {

constexpr size_t kMostTokenizerBytes = size_t{64} << 20;

}  // namespace

Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const Checkpoint& checkpoint) {
  constexpr const char* kName = "tokenizer.json";
  const auto text = checkpoint.side_file(kName, kMostTokenizerBytes);
  if (!text.ok()) return text.status();
  if (!*text) return std::shared_ptr<const Tokenizer>();
  return Tokenizer::parse(**text, checkpoint.label(kName));
}

Result<std::shared_ptr<const ChatTemplate>> load_chat_template(const Checkpoint& checkpoint) {
  if (!checkpoint.is_gguf()) return ChatTemplate::load(checkpoint.dir());
  const auto config = checkpoint.side_file("tokenizer_config.json", kMostTokenizerBytes);
  if (!config.ok()) return config.status();
  auto parsed =
      ChatTemplate::parse(*config ? std::string_view(**config) : std::string_view(), "", "");
  if (!parsed.ok()) return parsed.status().with_context(checkpoint.dir());
  return parsed;
}

Result<std::shared_ptr<const ChatTemplate>> load_chat_template(const Checkpoint& checkpoint,
                                                               const std::string& file) {
  const auto text = read_file(Env::system(), file, kMostTokenizerBytes);
  if (!text.ok()) return text.status();
  if (text->empty()) {
    return Status(Code::kInvalidArgument, file + ": empty (expected a chat template)");
  }
  const auto config = checkpoint.side_file("tokenizer_config.json", kMostTokenizerBytes);
  if (!config.ok()) return config.status();
  // With tools as well: one that the checkpoint names "tool_use" would be taken else.
  auto parsed =
      ChatTemplate::parse(*config ? std::string_view(**config) : std::string_view(), *text, *text);
  if (!parsed.ok()) return parsed.status().with_context(file);
  return parsed;
}

}  // namespace chimera
