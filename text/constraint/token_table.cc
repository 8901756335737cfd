#include "text/constraint/token_table.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/utf8.h"

namespace chimera::constraint {
namespace {

using Entry = std::pair<std::string_view, int32_t>;

/// Bytes of a token at most; longer ones are left out. The longest of any known vocabulary are runs
/// of a few hundred spaces.
constexpr size_t kMaxTokenBytes = 1024;

/// A node for every beginning of a text of `entries`, which are sorted.
TokenTrie make_trie(const std::vector<Entry>& entries) {
  TokenTrie out;
  std::vector<int32_t> path;  // nodes from the root to the current one
  std::string_view last;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      out.after[static_cast<size_t>(path.back())] = static_cast<int32_t>(out.byte.size());
    }
  };
  for (const auto& [bytes, token] : entries) {
    const auto common = static_cast<size_t>(
        std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end()).first - last.begin());
    close(common);
    for (size_t i = common; i < bytes.size(); ++i) {
      path.push_back(static_cast<int32_t>(out.byte.size()));
      out.byte.push_back(static_cast<uint8_t>(bytes[i]));
      out.depth.push_back(static_cast<uint16_t>(i + 1));
      out.after.push_back(0);
      out.first_token.push_back(static_cast<int32_t>(out.tokens.size()));
    }
    out.tokens.push_back(token);
    out.max_depth = std::max(out.max_depth, bytes.size());
    last = bytes;
  }
  close(0);
  out.first_token.push_back(static_cast<int32_t>(out.tokens.size()));
  return out;
}

size_t memory_of(const TokenTrie& trie) {
  return trie.byte.size() * (1 + 2 + 4 + 4) + trie.tokens.size() * 4;
}

}  // namespace

TokenTable::TokenTable(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab,
                       std::span<const int32_t> ends)
    : tokenizer_(std::move(tokenizer)),
      vocab_(static_cast<size_t>(vocab)),
      ends_(ends.begin(), ends.end()) {
  const auto count = static_cast<int32_t>(std::min(vocab, tokenizer_->vocab_size()));
  std::vector<Entry> middle;
  for (int32_t id = 0; id < count; ++id) {
    if (!usable(id)) continue;
    const std::string_view bytes = tokenizer_->token_bytes(id);
    if (tokenizer_->is_special(id)) {
      middle.emplace_back(marks_[id] = kMarkByte + std::string(bytes), id);
      continue;
    }
    middle.emplace_back(bytes, id);
    // Only a space in front is treated in another way at the beginning, of all known decoders.
    if (bytes.front() != ' ' || find_invalid_utf8(bytes)) continue;
    const int32_t ids[] = {id};
    const Result<std::string> alone = tokenizer_->decode(ids, /*skip_special=*/true);
    if (alone.ok() && *alone != bytes) start_bytes_[id] = *alone;
  }
  differs_ = !start_bytes_.empty();
  std::vector<Entry> start;
  for (const Entry& entry : middle) {
    if (!differs_) break;
    const std::string_view bytes = this->bytes(entry.second, /*at_start=*/true);
    if (!bytes.empty()) start.emplace_back(bytes, entry.second);
  }
  std::sort(middle.begin(), middle.end());
  std::sort(start.begin(), start.end());
  middle_ = make_trie(middle);
  start_ = make_trie(start);
}

bool TokenTable::usable(int32_t token) const {
  const std::string_view bytes = tokenizer_->token_bytes(token);
  return !bytes.empty() && bytes.size() <= kMaxTokenBytes && !is_end(token) &&
         bytes.find(kMarkByte) == std::string_view::npos;
}

bool TokenTable::has_mark(std::string_view text) const {
  const int32_t token = tokenizer_->token_id(text);
  return token >= 0 && marks_.contains(token);
}

std::string_view TokenTable::bytes(int32_t token, bool at_start) const {
  if (at_start) {
    const auto found = start_bytes_.find(token);
    if (found != start_bytes_.end()) return found->second;
  }
  const auto mark = marks_.find(token);
  return mark != marks_.end() ? mark->second : tokenizer_->token_bytes(token);
}

bool TokenTable::is_end(int32_t token) const {
  return std::find(ends_.begin(), ends_.end(), token) != ends_.end();
}

size_t TokenTable::memory() const { return memory_of(middle_) + memory_of(start_); }

}  // namespace chimera::constraint
