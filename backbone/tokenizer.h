// Text to token ids and back, from a Hugging Face tokenizer.json: byte-level BPE with its
// pre-tokenizer regular expression (PCRE2) and added tokens. Unknown components are refused by
// name.
//
// Thread safety: immutable after load; all methods are const and may run concurrently.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/status.h"

namespace chimera {

class Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> load(const std::string& tokenizer_json_path);
  static Result<std::shared_ptr<const Tokenizer>> parse(std::string_view json, std::string_view label);
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special_tokens = false;  // run the post-processor (bos and the like)
    bool match_special = false;       // let special tokens in the text become control tokens;
                                      // off for user text so that nobody injects them
  };
  Result<std::vector<int32_t>> encode(std::string_view utf8, EncodeOptions options) const;
  /// Invalid UTF-8 becomes U+FFFD per the standard's maximal-subpart rule. Unknown ids:
  /// invalid_argument.
  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special) const;

  int64_t vocab_size() const;
  /// Raw bytes of one token (not necessarily whole characters); empty for unknown ids.
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  /// -1 when absent.
  int32_t token_id(std::string_view token) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns a growing id sequence into text pieces that never split a UTF-8 character. The
/// concatenation of all pieces plus flush() equals decode() of all ids.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);
  /// Text that became certain with this id (may be empty).
  std::string push(int32_t id);
  /// Whatever was held back; incomplete characters become U+FFFD.
  std::string flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace chimera
