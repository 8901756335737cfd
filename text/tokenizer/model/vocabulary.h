// Tokens and ids of one tokenizer: the model's vocabulary and the added tokens beside it.
//
// Thread safety: immutable once built.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"

namespace chimera::tokenizer {

inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;
inline constexpr int32_t kNoToken = -1;

class Vocabulary {
 public:
  /// Reads the object token -> id of the model. data_corrupt for ids that are no whole number,
  /// twice used, above kMaxTokenId or so sparse that a table of them would be mostly holes.
  Status add_model_tokens(const Json& vocab);
  /// Reads the array of [token, …] of the model; a token's place is its id. A token may stand there
  /// twice: its text then means the last of them. data_corrupt when it is another shape.
  Status add_listed_tokens(const Json& vocab);
  /// An added token; it may repeat an entry of the model with the same id. data_corrupt when
  /// content and id contradict what is known.
  Status add_added_token(const std::string& content, int32_t id, bool special);

  /// One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  bool contains(int32_t id) const { return id >= 0 && id < size() && at(id).present; }
  /// REQUIRES: contains(id).
  std::string_view content(int32_t id) const { return at(id).content; }
  bool is_special(int32_t id) const { return contains(id) && at(id).special; }
  /// Whether decoding leaves `id` out when it skips special tokens. As in the reference, what the
  /// decoder reads decides: a special token whose decoded form is another text stays.
  bool is_skipped(int32_t id) const;
  /// Id within the model's own vocabulary, which is all that merging may produce.
  int32_t model_id(std::string_view content) const { return look_up(model_ids_, content); }
  /// Id of an added token, else of the model's.
  int32_t id(std::string_view content) const;
  /// What the decoder reads for `id` instead of its content, see AddedTokens.
  void set_decoded_form(int32_t id, std::string form);
  std::string_view decoded_form(int32_t id) const;

 private:
  struct Entry {
    std::string content;
    bool present = false;
    bool special = false;
  };
  struct Hash {
    using is_transparent = void;  // looks up string views without copying them
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  using Ids = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

  const Entry& at(int32_t id) const { return entries_[static_cast<size_t>(id)]; }
  static int32_t look_up(const Ids& ids, std::string_view content);
  Status reserve(int32_t id);

  std::vector<Entry> entries_;  // [size()], by id
  Ids model_ids_;
  Ids added_ids_;
  std::unordered_map<int32_t, std::string> decoded_forms_;
  size_t count_ = 0;
};

}  // namespace chimera::tokenizer
