// Text to token ids and back, from a Hugging Face tokenizer.json: byte-level BPE,
// SentencePiece-style BPE with byte fallback, and Unigram, with their normalizers, pre-tokenizers
// (PCRE2), added tokens, post-processors and decoders. Unknown components are refused by name.
//
// The parts are in tokenizer_*.h; text flows added tokens -> normalizer -> added tokens ->
// pre-tokenizer -> model -> post-processor, ids flow through the decoder. "truncation" and
// "padding" of the file are ignored: lengths are the engine's business.
//
// Thread safety: immutable after load; all methods are const and may run concurrently.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/span.h"

namespace chimera {

namespace tokenizer {
class DecodeStream;
}

class Tokenizer {
 public:
  /// tokenizer.json is untrusted: at most 64 MiB, everything checked. data_corrupt when it is
  /// malformed, unimplemented when it names a component that is not supported.
  static Result<std::shared_ptr<const Tokenizer>> load(const std::string& tokenizer_json_path);
  static Result<std::shared_ptr<const Tokenizer>> parse(std::string_view json,
                                                        std::string_view label);
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special_tokens = false;  // run the post-processor (bos and the like)
    bool match_special = false;       // let special tokens in the text become control tokens;
                                      // off for user text so that nobody injects them
    /// With match_special: ranges of the text, sorted and apart, where it is off all the same. The
    /// rest of the tokenization does not see them.
    std::span<const TextSpan> plain{};
  };
  /// invalid_argument names the byte offset where `utf8` is not UTF-8, or what the vocabulary
  /// cannot express; resource_exhausted when it is too large or runs away in an expression.
  Result<std::vector<int32_t>> encode(std::string_view utf8, EncodeOptions options) const;
  /// Invalid UTF-8 becomes U+FFFD per the standard's maximal-subpart rule. Ids without a token
  /// (models pad their vocabularies) stand for nothing; negative ones are invalid_argument.
  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special) const;

  /// One more than the largest id, added tokens included.
  int64_t vocab_size() const;
  /// Raw bytes of one token (not necessarily whole characters); empty for unknown ids.
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  /// Id of a token by its content as tokenizer.json writes it; -1 when absent.
  int32_t token_id(std::string_view token) const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns a growing id sequence into text pieces that never split a UTF-8 character. The
/// concatenation of all pieces plus flush() equals decode() of all ids.
///
/// Thread safety: one thread at a time; independent of other decoders of the same tokenizer.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();
  /// Text that became certain with this id (may be empty). An unknown id stands for nothing.
  std::string push(int32_t id);
  /// Whatever was held back; incomplete characters become U+FFFD. The next push() begins a new
  /// text.
  std::string flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::unique_ptr<tokenizer::DecodeStream> stream_;
};

}  // namespace chimera
