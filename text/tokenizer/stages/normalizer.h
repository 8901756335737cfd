// The "normalizer" of tokenizer.json: rewrites text before it is split.
//
// Thread safety: immutable after from_json.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/regex/regex.h"
#include "text/tokenizer/stages/charsmap.h"

namespace chimera::tokenizer {

class Normalizer {
 public:
  /// `json` may be null (no normalizer). unimplemented names an unknown component.
  static Result<Normalizer> from_json(const Json& json);

  bool empty() const { return steps_.empty(); }
  /// Rewrites `text`, which is and stays valid UTF-8. resource_exhausted when it would grow beyond
  /// 256 MiB. `keeps_start` (may be null) becomes false when characters at the beginning were
  /// dropped or joined into one, so that the result no longer begins where the text did.
  Status apply(std::string& text, bool* keeps_start = nullptr) const;

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
  struct Nmt {};
  struct Precompiled {
    std::shared_ptr<const Charsmap> map;
  };
  struct ByteLevel {};
  using Step = std::variant<UnicodeForm, Prepend, Replace, Lowercase, StripSpace, StripAccents, Nmt,
                            Precompiled, ByteLevel>;

  static Status read(const Json& json, const std::string& where, std::vector<Step>& steps);
  static Status read_precompiled(Fields& fields, std::vector<Step>& steps);
  // Each clears `start` when the text no longer begins where it did, see apply.
  static Status run(const UnicodeForm& step, std::string& text, bool& start);
  static Status run(const Prepend& step, std::string& text, bool& start);
  static Status run(const Replace& step, std::string& text, bool& start);
  static Status run(const Lowercase& step, std::string& text, bool& start);
  static Status run(const StripSpace& step, std::string& text, bool& start);
  static Status run(const StripAccents& step, std::string& text, bool& start);
  static Status run(const Nmt& step, std::string& text, bool& start);
  static Status run(const Precompiled& step, std::string& text, bool& start);
  static Status run(const ByteLevel& step, std::string& text, bool& start);

  std::vector<Step> steps_;
};

}  // namespace chimera::tokenizer
