// The "post_processor" of tokenizer.json: special tokens put around the ids of a text.
//
// Thread safety: immutable after from_json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/vocabulary.h"

namespace chimera::tokenizer {

class PostProcessor {
 public:
  /// `json` may be null. unimplemented names an unknown component; data_corrupt for ids that
  /// `vocabulary` lacks.
  static Result<PostProcessor> from_json(const Json& json, const Vocabulary& vocabulary);

  const std::vector<int32_t>& prefix() const { return prefix_; }
  const std::vector<int32_t>& suffix() const { return suffix_; }

 private:
  Status read(const Json& json, const std::string& where, const Vocabulary& vocabulary);
  Status read_template(Fields& fields, const Vocabulary& vocabulary);
  Status read_pair(Fields& fields, const char* key, const Vocabulary& vocabulary, int32_t& id);

  std::vector<int32_t> prefix_;
  std::vector<int32_t> suffix_;
};

}  // namespace chimera::tokenizer
