// The "normalizer" of tokenizer.json: rewrites text before it is split.
//
// Thread safety: immutable after from_json.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "backbone/status.h"
#include "backbone/tokenizer_json.h"
#include "backbone/tokenizer_regex.h"

namespace chimera::tokenizer {

class Normalizer {
 public:
  /// `json` may be null (no normalizer). unimplemented names an unknown component.
  static Result<Normalizer> from_json(const Json& json);

  bool empty() const { return steps_.empty(); }
  /// Rewrites `text`, which is and stays valid UTF-8. resource_exhausted when it would grow beyond
  /// 256 MiB.
  Status apply(std::string& text) const;

 private:
  struct UnicodeForm {
    int utf8proc_options;
  };
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Regex pattern;
    std::string content;
  };
  struct Lowercase {};
  struct StripSpace {
    bool left;
    bool right;
  };
  struct StripAccents {};
  struct ByteLevel {};
  using Step =
      std::variant<UnicodeForm, Prepend, Replace, Lowercase, StripSpace, StripAccents, ByteLevel>;

  static Status read(const Json& json, const std::string& where, std::vector<Step>& steps);
  static Status run(const UnicodeForm& step, std::string& text);
  static Status run(const Prepend& step, std::string& text);
  static Status run(const Replace& step, std::string& text);
  static Status run(const Lowercase& step, std::string& text);
  static Status run(const StripSpace& step, std::string& text);
  static Status run(const StripAccents& step, std::string& text);
  static Status run(const ByteLevel& step, std::string& text);

  std::vector<Step> steps_;
};

}  // namespace chimera::tokenizer
