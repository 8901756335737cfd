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

enum class Kind : uint8_t { kGpt2, kLlama3, kQwen2, kGpt4o, kDeepseek3 };

struct Name {
  std::string_view name;
  Kind kind;
  bool whole_words = false;
  bool begins_text = false;
};
constexpr std::array kNames{
    Name{"dbrx", Kind::kLlama3},
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
