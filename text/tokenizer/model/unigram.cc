#include "text/tokenizer/model/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/json/writer.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// SentencePiece's kUnkPenalty.
constexpr double kUnknownPenalty = 10.0;
// Scratch of one thread is kept between calls up to this many places, about 1 MiB.
constexpr size_t kKeptPlaces = 32 * 1024;

}  // namespace

Result<std::unique_ptr<TokenModel>> Unigram::from_json(const Json& json,
                                                       const Vocabulary& vocabulary) {
  std::unique_ptr<Unigram> unigram(new Unigram(vocabulary));
  CHIMERA_RETURN_IF_ERROR(unigram->read(json));
  return std::unique_ptr<TokenModel>(std::move(unigram));
}

Status Unigram::read(const Json& json) {
  Fields fields(json, "model");
  const Json& vocab = *fields.array("vocab");
  byte_fallback_ = fields.boolean_or("byte_fallback", false);
  if (fields.has("unk_id")) {
    const int64_t unknown = fields.integer("unk_id", kMaxTokenId);
    if (unknown >= static_cast<int64_t>(vocab.size())) {
      fields.fail(
          fmt::format("\"unk_id\" is {}, but \"vocab\" has {} tokens", unknown, vocab.size()));
    }
    unknown_ = static_cast<int32_t>(unknown);
  }
  CHIMERA_RETURN_IF_ERROR(fields.status());
  double smallest = std::numeric_limits<double>::infinity();
  std::vector<std::pair<std::string_view, int32_t>> tokens;
  tokens.reserve(vocab.size());
  for (size_t id = 0; id < vocab.size(); ++id) {
    const Json& entry = vocab[id];  // read_model_tokens found [string, …] everywhere
    if (!entry[1].is_number()) {
      return Status(
          Code::kDataCorrupt,
          fmt::format("model.vocab[{}] is {}, expected [token, score]", id, write_json(entry)));
    }
    scores_.push_back(*entry[1].number());
    smallest = std::min(smallest, scores_.back());
    tokens.emplace_back(*entry[0].string(), static_cast<int32_t>(id));
  }
  unknown_score_ = smallest - kUnknownPenalty;
  trie_.build(std::move(tokens));
  for (size_t b = 0; b < 256; ++b)
    fallback_ids_[b] = vocabulary_.model_id(fmt::format("<0x{:02X}>", b));
  return {};
}

// Fills best[0 … piece.size()]; false when a character is unknown and no token stands for that.
bool Unigram::find_best(std::string_view piece, bool allow_special, std::vector<Best>& best) const {
  best.assign(piece.size() + 1, Best{});
  const auto offer = [&best](size_t begin, size_t end, double score, int32_t id) {
    Best& place = best[end];
    // At equal scores the token that begins first stays.
    if (place.reached && score <= place.score) return false;
    place = Best{score, begin, id, true};
    return true;
  };
  for (size_t pos = 0; pos < piece.size(); pos += char_length(piece[pos])) {
    const size_t length = char_length(piece[pos]);
    const double here = best[pos].score;
    bool single = false;
    trie_.for_each_prefix(piece.substr(pos), [&](size_t n, int32_t id) {
      if (blocked(id, allow_special)) return;
      single = single || n == length;
      offer(pos, pos + n, here + scores_[static_cast<size_t>(id)], id);
    });
    if (!single && offer(pos, pos + length, here + unknown_score_, unknown_) &&
        unknown_ == kNoToken) {
      return false;
    }
  }
  return true;
}

bool Unigram::encode(std::string_view piece, bool allow_special, std::vector<int32_t>& ids) const {
  if (cache_.find(piece, allow_special, ids)) return true;
  thread_local std::vector<Best> best;
  const bool found = find_best(piece, allow_special, best);
  if (!found) return false;
  std::vector<size_t> ends;
  for (size_t end = piece.size(); end > 0; end = best[end].begin) ends.push_back(end);
  const size_t before = ids.size();
  size_t run = 0;  // where the unknown characters before the current token begin
  for (auto it = ends.rbegin(); it != ends.rend(); ++it) {
    const Best& token = best[*it];
    if (token.id == unknown_) continue;
    add_unknown(piece.substr(run, token.begin - run), allow_special, ids);
    ids.push_back(token.id);
    run = *it;
  }
  add_unknown(piece.substr(run), allow_special, ids);
  cache_.insert(piece, allow_special, std::span(ids).subspan(before));
  if (best.capacity() > kKeptPlaces) best = {};
  return true;
}

// A run of unknown characters, possibly none. As in the reference, a run that is a token as a
// whole is that token after all.
void Unigram::add_unknown(std::string_view run, bool allow_special,
                          std::vector<int32_t>& ids) const {
  if (run.empty()) return;
  const int32_t whole = vocabulary_.model_id(run);
  if (whole != kNoToken && !blocked(whole, allow_special)) return ids.push_back(whole);
  const auto id_of = [this](char b) { return fallback_ids_[static_cast<uint8_t>(b)]; };
  const bool spelled = byte_fallback_ && std::none_of(run.begin(), run.end(),
                                                      [&](char b) { return id_of(b) == kNoToken; });
  if (!spelled) return ids.push_back(unknown_);
  for (const char b : run) ids.push_back(id_of(b));
}

}  // namespace chimera::tokenizer
