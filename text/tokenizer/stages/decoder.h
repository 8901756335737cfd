// The "decoder" of tokenizer.json as a chain of streaming stages: each takes tokens one after the
// other and passes on what has become certain. Decoding a whole sequence is a stream fed to its
// end, so streamed text and whole text cannot differ.
//
// Thread safety: Decoder is immutable after from_json; a DecodeStream belongs to one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"

namespace chimera::tokenizer {

class DecodeStream;

/// One stage. Every string it passes on is valid UTF-8 if those it takes are.
class DecodeStage {
 public:
  /// The rest of the chain as a stage sees it.
  class Next {
   public:
    Next(DecodeStream& stream, size_t stage, std::string& out)
        : stream_(stream), stage_(stage), out_(out) {}
    void operator()(std::string_view text) const;

   private:
    DecodeStream& stream_;
    size_t stage_;
    std::string& out_;
  };

  virtual ~DecodeStage() = default;
  /// A stage with the same settings at the start of a text.
  virtual std::unique_ptr<DecodeStage> fresh() const = 0;
  virtual void take(std::string_view token, const Next& next) = 0;
  /// The text is over: passes on what was held back.
  virtual void finish(const Next& next);
  /// What the token stands for by itself, in the middle of a text; bytes, not always characters.
  virtual std::string bytes_of(std::string token) const;
};

class Decoder {
 public:
  /// `json` may be null (tokens are joined by spaces). unimplemented names an unknown component.
  static Result<Decoder> from_json(const Json& json);
  std::string bytes_of(std::string_view token) const;

 private:
  friend class DecodeStream;
  using Stages = std::vector<std::shared_ptr<const DecodeStage>>;
  static Status read(const Json& json, const std::string& where, bool& fused, Stages& stages);

  Stages stages_;
};

class DecodeStream {
 public:
  explicit DecodeStream(const Decoder& decoder);
  /// Appends the text that became certain with `token` to `out`.
  void take(std::string_view token, std::string& out) { pass(0, token, out); }
  /// Appends what was held back. The stream is used up.
  void finish(std::string& out);

 private:
  friend class DecodeStage::Next;
  void pass(size_t stage, std::string_view token, std::string& out);

  std::vector<std::unique_ptr<DecodeStage>> stages_;
};

}  // namespace chimera::tokenizer
