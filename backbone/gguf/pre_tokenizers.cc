#include "backbone/gguf/pre_tokenizers.h"

#include <algorithm>
#include <array>

namespace chimera {
namespace {

constexpr std::string_view kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oWords =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// DeepSeek-V3's three, one after the other.
constexpr std::string_view kThreeDigits = R"(\p{N}{1,3})";
constexpr std::string_view kHanAndKana = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr std::string_view kDeepseek3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Those of DeepSeek LLM, which V2 has too, and of its coder: line ends, words, punctuation, blanks
// at the end, East Asian writing, digits. The words are of letters with case, as an older Unicode
// has them.
constexpr std::string_view kLineEnd = R"([\r\n])";
constexpr std::string_view kCasedWords =
    "\\s?["
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-"
    "\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15"
    "\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183"
    "\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+";
constexpr std::string_view kPunctuation =
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+";
constexpr std::string_view kBlanksAtEnd = R"(\s+$)";
constexpr std::string_view kEastAsian = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kCoderWords = R"(\s?\p{L}+)";
constexpr std::string_view kCoderPunctuation = R"(\s?\p{P}+)";
constexpr std::string_view kDigit = R"(\p{N})";

enum class Kind : uint8_t {
  kGpt2,
  kLlama3,
  kQwen2,
  kGpt4o,
  kDeepseekLlm,
  kDeepseekCoder,
  kDeepseek3
};

struct Name {
  std::string_view name;
  Kind kind;
  bool whole_words = false;
  bool begins_text = false;
};
constexpr std::array kNames{
    Name{"dbrx", Kind::kLlama3},
    Name{"deepseek-coder", Kind::kDeepseekCoder},
    Name{"deepseek-llm", Kind::kDeepseekLlm},
    Name{"deepseek-r1-qwen", Kind::kQwen2},
    Name{"deepseek-v3", Kind::kDeepseek3},
    Name{"gpt-2", Kind::kGpt2},
    Name{"gpt-4o", Kind::kGpt4o},
    Name{"llama-bpe", Kind::kLlama3, true, true},
    Name{"llama-v3", Kind::kLlama3, true, true},
    Name{"llama3", Kind::kLlama3, true, true},
    Name{"llama4", Kind::kGpt4o, false, true},
    Name{"olmo", Kind::kGpt2},
    Name{"qwen2", Kind::kQwen2},
    Name{"smaug-bpe", Kind::kLlama3},
};

Json byte_level(bool words) {
  return Json{{"type", "ByteLevel"},
              {"add_prefix_space", false},
              {"trim_offsets", true},
              {"use_regex", words}};
}

Json split(std::string_view expression) {
  return Json{{"type", "Split"},
              {"pattern", Json{{"Regex", expression}}},
              {"behavior", "Isolated"},
              {"invert", false}};
}

Json sequence(std::initializer_list<std::string_view> expressions) {
  Json steps = Json::array();
  for (const std::string_view expression : expressions) steps.push_back(split(expression));
  steps.push_back(byte_level(false));
  return Json{{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

Json json_of(Kind kind) {
  switch (kind) {
    case Kind::kGpt2:
      return byte_level(true);
    case Kind::kLlama3:
      return sequence({kLlama3Words});
    case Kind::kQwen2:
      return sequence({kQwen2Words});
    case Kind::kGpt4o:
      return sequence({kGpt4oWords});
    case Kind::kDeepseekLlm:
      return sequence({kLineEnd, kCasedWords, kPunctuation, kBlanksAtEnd, kEastAsian, kDigits});
    case Kind::kDeepseekCoder:
      return sequence({kLineEnd, kCoderWords, kCoderPunctuation, kEastAsian, kDigit});
    case Kind::kDeepseek3:
      return sequence({kThreeDigits, kHanAndKana, kDeepseek3Words});
  }
  return {};
}

}  // namespace

std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name) {
  const auto* found =
      std::find_if(kNames.begin(), kNames.end(), [&](const Name& n) { return n.name == name; });
  if (found == kNames.end()) return std::nullopt;
  return NamedPreTokenizer{json_of(found->kind), found->whole_words, found->begins_text};
}

std::string pre_tokenizer_names() {
  std::string list;
  for (const Name& name : kNames) list += (list.empty() ? "" : ", ") + std::string(name.name);
  return list;
}

}  // namespace chimera
