#include "text/tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

// Finding a match looks at up to this many bytes per place of the text.
constexpr size_t kMaxContent = 4096;

// Start of the character that ends before `pos`. REQUIRES: pos > 0.
size_t previous_char(std::string_view text, size_t pos) {
  do --pos;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0u) == 0x80u);
  return pos;
}

size_t skip_space_left(std::string_view text, size_t pos, size_t limit) {
  while (pos > limit) {
    const size_t before = previous_char(text, pos);
    if (!is_white_space(decode_char(text, before).code_point)) break;
    pos = before;
  }
  return pos;
}

size_t skip_space_right(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    const DecodedChar c = decode_char(text, pos);
    if (!is_white_space(c.code_point)) break;
    pos += c.length;
  }
  return pos;
}

}  // namespace

bool touches(std::span<const TextSpan> spans, size_t begin, size_t end) {
  const auto first = std::partition_point(spans.begin(), spans.end(),
                                          [&](const TextSpan& span) { return span.end <= begin; });
  return first != spans.end() && first->begin < end;
}

Result<AddedTokens> AddedTokens::from_json(const Json& json, const Normalizer& normalizer,
                                           Vocabulary& vocabulary) {
  AddedTokens result;
  if (json.is_null()) return result;
  if (!json.is_array()) {
    return Status(Code::kDataCorrupt,
                  fmt::format("added_tokens: expected an array, found {}", json.kind_name()));
  }
  for (size_t i = 0; i < json.size(); ++i) {
    Fields fields(json[i], fmt::format("added_tokens[{}]", i));
    const std::string content = fields.string("content");
    Token token;
    token.id = static_cast<int32_t>(fields.integer("id", kMaxTokenId));
    token.special = fields.boolean_or("special", false);
    token.single_word = fields.boolean_or("single_word", false);
    token.strip_left = fields.boolean_or("lstrip", false);
    token.strip_right = fields.boolean_or("rstrip", false);
    const bool normalized = fields.boolean_or("normalized", !token.special);
    CHIMERA_RETURN_IF_ERROR(fields.status());
    if (content.size() > kMaxContent) {
      fields.fail(
          fmt::format("\"content\" has {} bytes; the limit is {}", content.size(), kMaxContent));
      return fields.status();
    }
    if (content.empty()) continue;  // the reference ignores it as well
    CHIMERA_RETURN_IF_ERROR(vocabulary.add_added_token(content, token.id, token.special));
    token.pattern = content;
    if (normalized) {
      CHIMERA_RETURN_IF_ERROR(normalizer.apply(token.pattern));
      if (token.pattern != content) vocabulary.set_decoded_form(token.id, token.pattern);
      if (token.pattern.empty()) continue;
    }
    auto& matchers = result.matchers_[normalized ? 1 : 0];
    if (!token.special) matchers[0].tokens.push_back(token);
    matchers[1].tokens.push_back(std::move(token));
  }
  for (auto& pass : result.matchers_) {
    for (Matcher& matcher : pass) matcher.seal();
  }
  return result;
}

void AddedTokens::Matcher::seal() {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const Token& a, const Token& b) { return a.pattern < b.pattern; });
  for (const Token& token : tokens) first_byte[static_cast<uint8_t>(token.pattern[0])] = true;
}

const AddedTokens::Token* AddedTokens::Matcher::longest_at(std::string_view text,
                                                           size_t pos) const {
  const Token* longest = nullptr;
  auto low = tokens.begin();
  auto high = tokens.end();
  // Invariant: the patterns in [low, high) begin with the `depth` bytes of text at `pos`.
  for (size_t depth = 0; low != high && pos + depth < text.size(); ++depth) {
    const auto byte = static_cast<uint8_t>(text[pos + depth]);
    const auto key = [depth](const Token& t) {
      return depth < t.pattern.size() ? static_cast<int>(static_cast<uint8_t>(t.pattern[depth]))
                                      : -1;
    };
    low = std::partition_point(low, high, [&](const Token& t) { return key(t) < byte; });
    high = std::partition_point(low, high, [&](const Token& t) { return key(t) <= byte; });
    if (low != high && low->pattern.size() == depth + 1) longest = &*low;
  }
  return longest;
}

bool AddedTokens::stands_alone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(decode_char(text, previous_char(text, begin)).code_point)) return false;
  return end == text.size() || !is_word(decode_char(text, end).code_point);
}

void AddedTokens::split(std::string_view text, Pass pass, bool match_special,
                        std::span<const TextSpan> plain, std::vector<Segment>& out) const {
  const auto& matchers = matchers_[static_cast<size_t>(pass)];
  const Matcher& matcher = matchers[match_special ? 1 : 0];
  out.clear();
  const auto add_text = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back({text.substr(begin, end - begin), kNoToken, begin == 0});
  };
  size_t covered = 0;
  size_t pos = matcher.tokens.empty() ? text.size() : 0;
  while (pos < text.size()) {
    if (!matcher.first_byte[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    const Token* token = matcher.longest_at(text, pos);
    if (token != nullptr && token->special && touches(plain, pos, pos + token->pattern.size())) {
      token = matchers[0].longest_at(text, pos);
    }
    if (token == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    size_t end = pos + token->pattern.size();
    // The search goes on behind the bare match even when stripping reaches further: the
    // reference then lets a following match overlap the stripped spaces.
    pos = end;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    // Beyond the match, what a token before it has taken already is not looked at again.
    if (token->strip_left) begin = std::max(skip_space_left(text, begin, covered), covered);
    if (token->strip_right) end = skip_space_right(text, std::max(end, covered));
    add_text(covered, begin);
    out.push_back({{}, token->id, begin == 0});
    covered = end;
  }
  add_text(covered, text.size());
}

}  // namespace chimera::tokenizer
