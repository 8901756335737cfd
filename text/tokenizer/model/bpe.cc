#include "text/tokenizer/model/bpe.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// Scratch of one thread is kept between calls up to this many symbols, about 1 MiB.
constexpr size_t kKeptSymbols = 32 * 1024;
// Words of up to this many symbols are merged without a heap.
constexpr size_t kShortWord = 24;

// Where the last character of `text`, which is not empty, begins.
size_t last_char(std::string_view text) {
  size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0u) == 0x80u) --pos;
  return pos;
}

}  // namespace

void Bpe::MergeTable::reset(size_t count) {
  int bits = 4;
  while ((size_t{1} << bits) < 2 * count) ++bits;
  slots_.assign(size_t{1} << bits, Merge{});
  shift_ = 64 - bits;
}

size_t Bpe::MergeTable::slot(uint64_t pair) const {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15ull) >> shift_);  // Fibonacci hashing
}

void Bpe::MergeTable::put(int32_t left, int32_t right, uint32_t rank, int32_t result) {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t i = slot(pair);
  while (slots_[i].pair != Merge::kFree && slots_[i].pair != pair) i = (i + 1) % slots_.size();
  slots_[i] = Merge{pair, rank, result};
}

const Bpe::Merge* Bpe::MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t i = slot(pair);
  while (slots_[i].pair != pair) {
    if (slots_[i].pair == Merge::kFree) return nullptr;
    i = (i + 1) & (slots_.size() - 1);
  }
  return &slots_[i];
}

bool Bpe::reads_bytes(const Json& json) {
  Fields fields(json, "model");
  // These options spell tokens in characters, so pieces must come as characters too.
  return fields.string_or("continuing_subword_prefix", "").empty() &&
         fields.string_or("end_of_word_suffix", "").empty() &&
         !fields.boolean_or("byte_fallback", false);
}

Result<std::unique_ptr<TokenModel>> Bpe::from_json(const Json& json, PieceForm form,
                                                   const Vocabulary& vocabulary) {
  std::unique_ptr<Bpe> bpe(new Bpe(vocabulary));
  CHIMERA_RETURN_IF_ERROR(bpe->read_options(json, form));
  CHIMERA_RETURN_IF_ERROR(bpe->read_merges(json));
  bpe->read_alphabet(form);
  return std::unique_ptr<TokenModel>(std::move(bpe));
}

Status Bpe::read_options(const Json& json, PieceForm form) {
  Fields fields(json, "model");
  form_ = form;
  const Json& dropout = json["dropout"];
  if (!dropout.is_null() && dropout != 0.0) {
    return Status(Code::kUnimplemented,
                  fmt::format("model: \"dropout\" is {}, supported is none", write_json(dropout)),
                  "set \"dropout\" to null; it serves training only");
  }
  subword_prefix_ = fields.string_or("continuing_subword_prefix", "");
  word_suffix_ = fields.string_or("end_of_word_suffix", "");
  fuse_unknown_ = fields.boolean_or("fuse_unk", false);
  byte_fallback_ = fields.boolean_or("byte_fallback", false);
  ignore_merges_ = fields.boolean_or("ignore_merges", false);
  if (fields.has("unk_token")) {
    const std::string token = fields.string("unk_token");
    unknown_ = vocabulary_.model_id(token);
    if (unknown_ == kNoToken) unknown_ = vocabulary_.id(token);
    // Byte-level vocabularies never need it, and some published files name one they lack.
    unknown_missing_ = unknown_ == kNoToken;
  }
  return fields.status();
}

Status Bpe::read_merges(const Json& json) {
  Fields fields(json, "model");
  const Json& merges = *fields.array("merges");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  merges_.reset(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    // The first line of a merges.txt, which old converters carried over.
    if (merge.is_string() && merge.string()->starts_with("#version")) continue;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      CHIMERA_RETURN_IF_ERROR(add_merge(*merge[0].string(), *merge[1].string(), rank));
      continue;
    }
    const std::string_view text = merge.is_string() ? std::string_view(*merge.string()) : "";
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return Status(Code::kDataCorrupt,
                    fmt::format("model.merges[{}] is {}, expected \"left right\" or [left, right]",
                                rank, write_json(merge)));
    }
    CHIMERA_RETURN_IF_ERROR(add_merge(text.substr(0, space), text.substr(space + 1), rank));
  }
  return {};
}

Status Bpe::add_merge(std::string_view left, std::string_view right, size_t rank) {
  const auto refuse = [&](std::string_view token) {
    return Status(Code::kDataCorrupt,
                  fmt::format("model.merges[{}]: \"{}\" is not in model.vocab", rank, token));
  };
  const int32_t left_id = vocabulary_.model_id(left);
  if (left_id == kNoToken) return refuse(left);
  const int32_t right_id = vocabulary_.model_id(right);
  if (right_id == kNoToken) return refuse(right);
  if (right.size() < subword_prefix_.size()) return refuse(subword_prefix_);
  const std::string joined = std::string(left) + std::string(right.substr(subword_prefix_.size()));
  const int32_t result = vocabulary_.model_id(joined);
  if (result == kNoToken) return refuse(joined);
  merges_.put(left_id, right_id, static_cast<uint32_t>(rank), result);
  if (form_ == PieceForm::kCharacters && !left.empty() && !right.empty()) {
    const uint64_t last = decode_char(left, last_char(left)).code_point;
    joints_.insert(last << 32 | decode_char(right, 0).code_point);
  }
  return {};
}

void Bpe::read_alphabet(PieceForm form) {
  for (size_t b = 0; b < 256; ++b) {
    std::string c;
    append_char(byte_level_char(static_cast<uint8_t>(b)), c);
    byte_ids_[b] = vocabulary_.model_id(c);
    fallback_ids_[b] = vocabulary_.model_id(fmt::format("<0x{:02X}>", b));
  }
  if (form == PieceForm::kBytes) return;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view content = vocabulary_.contains(id) ? vocabulary_.content(id) : "";
    const bool single = !content.empty() && char_length(content[0]) == content.size();
    if (single && vocabulary_.model_id(content) == id) {
      char_ids_.emplace(decode_char(content, 0).code_point, id);
    }
  }
  // Where a symbol depends on its place in the piece, on the request (special characters) or the
  // piece as a whole is looked up, a part does not encode as it would inside the piece.
  const bool special_chars =
      std::any_of(char_ids_.begin(), char_ids_.end(),
                  [this](const auto& entry) { return vocabulary_.is_special(entry.second); });
  cut_ = subword_prefix_.empty() && word_suffix_.empty() && !ignore_merges_ && !special_chars;
}

bool Bpe::may_join(uint32_t left, uint32_t right) const {
  return joints_.contains(uint64_t{left} << 32 | right) || !char_ids_.contains(left) ||
         !char_ids_.contains(right);
}

bool Bpe::encode(std::string_view piece, bool allow_special, std::vector<int32_t>& ids) const {
  if (!cut_) return encode_word(piece, allow_special, ids);
  size_t begin = 0;
  uint32_t previous = 0;
  for (size_t pos = 0; pos < piece.size();) {
    const DecodedChar c = decode_char(piece, pos);
    if (pos > begin && !may_join(previous, c.code_point)) {
      if (!encode_word(piece.substr(begin, pos - begin), allow_special, ids)) return false;
      begin = pos;
    }
    previous = c.code_point;
    pos += c.length;
  }
  return encode_word(piece.substr(begin), allow_special, ids);
}

bool Bpe::encode_word(std::string_view word, bool allow_special, std::vector<int32_t>& ids) const {
  if (cache_.find(word, allow_special, ids)) return true;
  const size_t before = ids.size();
  if (!encode_uncached(word, allow_special, ids)) return false;
  cache_.insert(word, allow_special, std::span(ids).subspan(before));
  return true;
}

bool Bpe::encode_uncached(std::string_view piece, bool allow_special, std::vector<int32_t>& ids,
                          size_t* handled) const {
  if (ignore_merges_) {
    const int32_t id = whole_piece(piece, allow_special);
    if (id != kNoToken) {
      ids.push_back(id);
      return true;
    }
  }
  thread_local Scratch scratch;
  scratch.symbols.clear();
  if (!start_symbols(piece, allow_special, scratch)) return false;
  const size_t entries = scratch.symbols.size() <= kShortWord
                             ? merge_short(allow_special, scratch.symbols)
                             : merge_all(allow_special, scratch);
  if (handled != nullptr) *handled = entries;
  for (const Symbol& symbol : scratch.symbols) {
    if (symbol.id != kNoToken) ids.push_back(symbol.id);
  }
  if (scratch.symbols.capacity() > kKeptSymbols) scratch = Scratch();
  return true;
}

int32_t Bpe::whole_piece(std::string_view piece, bool allow_special) const {
  const int32_t id = form_ == PieceForm::kBytes ? vocabulary_.model_id(to_byte_level(piece))
                                                : vocabulary_.model_id(piece);
  return id != kNoToken && blocked(id, allow_special) ? kNoToken : id;
}

// One symbol per byte or character. Unknown ones become byte tokens where the vocabulary has
// them, else the unknown token, else nothing. As in the reference, an unknown token that waits to
// be fused is placed before the next known character, not before byte tokens. False when an
// unknown token is called for that the vocabulary lacks.
bool Bpe::start_symbols(std::string_view piece, bool allow_special, Scratch& s) const {
  const auto add = [&s](int32_t id) { s.symbols.push_back(Symbol{id, 0, 0}); };
  bool unknown_waits = false;
  for (size_t pos = 0; pos < piece.size();) {
    const size_t length = form_ == PieceForm::kBytes ? 1 : char_length(piece[pos]);
    const std::string_view c = piece.substr(pos, length);
    const bool first = pos == 0;
    const bool last = pos + length == piece.size();
    const std::string spelled = has_affix(first, last) ? with_affixes(c, first, last) : "";
    const int32_t id = spelled.empty() ? symbol_id(c) : vocabulary_.model_id(spelled);
    pos += length;
    if (id != kNoToken && !blocked(id, allow_special)) {
      if (unknown_waits) add(unknown_);
      unknown_waits = false;
      add(id);
      continue;
    }
    if (byte_fallback_ && add_byte_fallback(spelled.empty() ? c : spelled, s)) continue;
    if (unknown_missing_) return false;
    if (unknown_ == kNoToken) continue;
    if (unknown_waits && !fuse_unknown_) add(unknown_);
    unknown_waits = true;
  }
  if (unknown_waits) add(unknown_);
  return true;
}

std::string Bpe::with_affixes(std::string_view c, bool first, bool last) const {
  std::string token = first ? "" : subword_prefix_;
  token += c;
  if (last) token += word_suffix_;
  return token;
}

int32_t Bpe::symbol_id(std::string_view c) const {
  if (form_ == PieceForm::kBytes) return byte_ids_[static_cast<uint8_t>(c[0])];
  const auto it = char_ids_.find(decode_char(c, 0).code_point);
  return it == char_ids_.end() ? kNoToken : it->second;
}

bool Bpe::add_byte_fallback(std::string_view c, Scratch& s) const {
  const auto id_of = [this](char b) { return fallback_ids_[static_cast<uint8_t>(b)]; };
  if (std::any_of(c.begin(), c.end(), [&](char b) { return id_of(b) == kNoToken; })) return false;
  for (const char b : c) s.symbols.push_back(Symbol{id_of(b), 0, 0});
  return true;
}

bool Bpe::add_candidate(size_t left, bool allow_special, Scratch& s) const {
  const Symbol& symbol = s.symbols[left];
  if (symbol.next < 0) return false;
  const Merge* merge = merges_.find(symbol.id, s.symbols[static_cast<size_t>(symbol.next)].id);
  if (merge == nullptr || blocked(merge->result, allow_special)) return false;
  s.heap.push_back(Candidate{static_cast<uint64_t>(merge->rank) << 32 | left, merge->result});
  return true;
}

size_t Bpe::merge_all(bool allow_special, Scratch& s) const {
  const size_t n = s.symbols.size();
  for (size_t i = 0; i < n; ++i) {
    s.symbols[i].previous = static_cast<int32_t>(i) - 1;
    s.symbols[i].next = i + 1 < n ? static_cast<int32_t>(i + 1) : -1;
  }
  s.heap.clear();
  for (size_t i = 0; i + 1 < n; ++i) add_candidate(i, allow_special, s);
  std::make_heap(s.heap.begin(), s.heap.end());
  size_t handled = 0;
  while (!s.heap.empty()) {
    ++handled;
    std::pop_heap(s.heap.begin(), s.heap.end());
    const Candidate top = s.heap.back();
    s.heap.pop_back();
    const auto at = static_cast<size_t>(top.order & 0xFFFFFFFFu);
    Symbol& left = s.symbols[at];
    if (left.id == kNoToken || left.next < 0) continue;
    Symbol& right = s.symbols[static_cast<size_t>(left.next)];
    // A neighbour may have merged away since: then this pair is another one or none.
    const Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->result != top.result) continue;
    left.id = top.result;
    left.next = right.next;
    right.id = kNoToken;
    if (left.next >= 0) {
      s.symbols[static_cast<size_t>(left.next)].previous = static_cast<int32_t>(at);
    }
    for (const int32_t changed : {left.previous, static_cast<int32_t>(at)}) {
      if (changed >= 0 && add_candidate(static_cast<size_t>(changed), allow_special, s)) {
        std::push_heap(s.heap.begin(), s.heap.end());
      }
    }
  }
  return handled;
}

// The same merges by scanning: merge i joins symbols i and i + 1 where there is one. A pair that
// changed gives a longer token, never the one it gave before, so the order is that of the heap.
size_t Bpe::merge_short(bool allow_special, std::vector<Symbol>& symbols) const {
  constexpr uint32_t kNoMerge = ~uint32_t{0};
  std::array<uint32_t, kShortWord> ranks{};
  std::array<int32_t, kShortWord> results{};
  size_t n = symbols.size();
  const auto look_up = [&](size_t i) {
    const Merge* merge = i + 1 < n ? merges_.find(symbols[i].id, symbols[i + 1].id) : nullptr;
    const bool usable = merge != nullptr && !blocked(merge->result, allow_special);
    ranks[i] = usable ? merge->rank : kNoMerge;
    results[i] = usable ? merge->result : kNoToken;
  };
  for (size_t i = 0; i < n; ++i) look_up(i);
  size_t handled = 0;
  while (n > 1) {
    const auto first = ranks.begin();
    const auto best = std::min_element(first, first + static_cast<ptrdiff_t>(n - 1));
    if (*best == kNoMerge) break;
    ++handled;
    const auto at = static_cast<size_t>(best - first);
    symbols[at].id = results[at];
    --n;
    for (size_t i = at + 1; i < n; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    look_up(at);
    if (at > 0) look_up(at - 1);
  }
  symbols.resize(n);
  return handled;
}

}  // namespace chimera::tokenizer
