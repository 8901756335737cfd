#include "text/tokenizer/model/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"

namespace chimera::tokenizer {
namespace {

// Published vocabularies are nearly dense; a lone id of 2^24 must not cost a 16 M entry table.
constexpr size_t kMaxHoles = 1 << 20;

Status corrupt(std::string message) {
  return Status(Code::kDataCorrupt, std::move(message),
                "every token needs one id of its own below 2^24");
}

}  // namespace

Status Vocabulary::reserve(int32_t id) {
  const auto needed = static_cast<size_t>(id) + 1;
  if (needed > 2 * (count_ + 1) + kMaxHoles) {
    return corrupt(fmt::format("token id {} with only {} tokens before it", id, count_));
  }
  if (entries_.size() < needed) entries_.resize(needed);
  ++count_;
  return {};
}

Status Vocabulary::add_model_tokens(const Json& vocab) {
  int64_t largest = -1;
  for (const auto& [content, id] : vocab.items()) {
    const std::optional<uint64_t> value = id.natural();
    if (!value || *value > uint64_t{kMaxTokenId}) {
      return corrupt(fmt::format("model.vocab: id {} of token \"{}\" is not in 0..{}",
                                 write_json(id), content, kMaxTokenId));
    }
    largest = std::max(largest, static_cast<int64_t>(*value));
  }
  count_ = vocab.size();
  if (largest < 0) return {};
  CHIMERA_RETURN_IF_ERROR(reserve(static_cast<int32_t>(largest)));
  --count_;
  model_ids_.reserve(vocab.size());
  for (const auto& [content, id] : vocab.items()) {
    const auto value = static_cast<int32_t>(*id.natural());
    Entry& entry = entries_[static_cast<size_t>(value)];
    if (entry.present) {
      return corrupt(fmt::format("model.vocab: id {} belongs to both \"{}\" and \"{}\"", value,
                                 entry.content, content));
    }
    entry.content = content;
    entry.present = true;
    model_ids_.emplace(content, value);
  }
  return {};
}

Status Vocabulary::add_listed_tokens(const Json& vocab) {
  if (vocab.size() > size_t{kMaxTokenId} + 1) {
    return corrupt(fmt::format("model.vocab: {} tokens; the limit is {}", vocab.size(),
                               int64_t{kMaxTokenId} + 1));
  }
  entries_.resize(vocab.size());
  model_ids_.reserve(vocab.size());
  for (size_t id = 0; id < vocab.size(); ++id) {
    const Json& entry = vocab[id];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string()) {
      return corrupt(fmt::format("model.vocab[{}]: expected [token, score]", id));
    }
    entries_[id].content = *entry[0].string();
    entries_[id].present = true;
    model_ids_[entries_[id].content] = static_cast<int32_t>(id);
  }
  count_ = vocab.size();
  return {};
}

Status Vocabulary::add_added_token(const std::string& content, int32_t id, bool special) {
  const int32_t in_model = model_id(content);
  if (in_model != kNoToken && in_model != id) {
    return corrupt(fmt::format("added_tokens: \"{}\" has id {}, but {} in model.vocab", content, id,
                               in_model));
  }
  if (added_ids_.contains(content)) {
    return corrupt(fmt::format("added_tokens: \"{}\" is listed twice", content));
  }
  if (contains(id) && content != at(id).content) {
    return corrupt(fmt::format("added_tokens: id {} of \"{}\" belongs to \"{}\"", id, content,
                               at(id).content));
  }
  CHIMERA_RETURN_IF_ERROR(reserve(id));
  Entry& entry = entries_[static_cast<size_t>(id)];
  entry.content = content;
  entry.present = true;
  entry.special = special;
  added_ids_.emplace(content, id);
  return {};
}

int32_t Vocabulary::look_up(const Ids& ids, std::string_view content) {
  const auto it = ids.find(content);
  return it == ids.end() ? kNoToken : it->second;
}

int32_t Vocabulary::id(std::string_view content) const {
  const int32_t added = look_up(added_ids_, content);
  return added != kNoToken ? added : model_id(content);
}

bool Vocabulary::is_skipped(int32_t id) const {
  return contains(id) && is_special(look_up(added_ids_, decoded_form(id)));
}

void Vocabulary::set_decoded_form(int32_t id, std::string form) {
  decoded_forms_[id] = std::move(form);
}

std::string_view Vocabulary::decoded_form(int32_t id) const {
  const auto it = decoded_forms_.find(id);
  return it == decoded_forms_.end() ? content(id) : std::string_view(it->second);
}

}  // namespace chimera::tokenizer
