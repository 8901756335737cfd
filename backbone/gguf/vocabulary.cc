#include "backbone/gguf/vocabulary.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

#include "backbone/gguf/fields.h"
#include "backbone/gguf/pre_tokenizers.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "base/utf8.h"

namespace chimera {
namespace {

using Texts = std::vector<std::string>;

// tokenizer.ggml.token_type
constexpr int64_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;
constexpr std::string_view kSpace =
    "\xE2\x96\x81";  // U+2581, what SentencePiece writes for a space
// A piece of n characters has n - 1 ways to be put together; released pieces have up to 16.
constexpr size_t kMostPieceBytes = 256;

class VocabularyMaker {
 public:
  VocabularyMaker(GgufFields& fields, const Texts& tokens) : fields_(fields), tokens_(tokens) {}

  Status run(const std::string& model, std::map<std::string, std::string, std::less<>>& files) {
    read_types();
    Json tokenizer = Json::object();
    tokenizer["version"] = "1.0";
    tokenizer["added_tokens"] = added_tokens();
    if (model == "gpt2") {
      byte_level(tokenizer);
    } else {
      sentence_piece(tokenizer);
    }
    if (!fields_.status().ok()) return fields_.status();
    files["tokenizer.json"] = write_json(tokenizer);
    add_config(files);
    return fields_.status();
  }

 private:
  void corrupt(const std::string& what) { fields_.fail(Code::kDataCorrupt, what); }

  void read_types() {
    types_.assign(tokens_.size(), kNormal);
    const auto* stated = fields_.integers("tokenizer.ggml.token_type");
    if (stated == nullptr) return;
    if (stated->size() != tokens_.size())
      return corrupt("tokenizer.ggml.token_type has " + std::to_string(stated->size()) +
                     " entries (expected " + std::to_string(tokens_.size()) + ", one a token)");
    types_ = *stated;
  }

  bool is_added(size_t i) const {
    return types_[i] == kControl || types_[i] == kUserDefined || types_[i] == kUnknown;
  }

  /// Control tokens and those that users add are found in the text as they are.
  Json added_tokens() {
    Json list = Json::array();
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (!is_added(i) || tokens_[i].empty()) continue;
      list.push_back({{"id", i},
                      {"content", tokens_[i]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", types_[i] != kUserDefined}});
    }
    return list;
  }

  Json vocabulary(bool added) {
    Json vocab = Json::object();
    std::unordered_map<std::string_view, size_t> seen;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const bool wanted = types_[i] == kNormal || types_[i] == kByte || (added && is_added(i));
      if (!wanted) continue;
      if (find_invalid_utf8(tokens_[i])) {
        corrupt("token " + std::to_string(i) + " is not UTF-8");
        break;
      }
      if (!seen.emplace(tokens_[i], i).second) {
        corrupt("token " + quote(tokens_[i]) + " is there twice");
        break;
      }
      vocab.append(tokens_[i], i);
    }
    return vocab;
  }

  void byte_level(Json& out) {
    const std::string* pre = fields_.text("tokenizer.ggml.pre");
    const std::optional<NamedPreTokenizer> known =
        pre == nullptr ? std::nullopt : named_pre_tokenizer(*pre);
    if (!known)
      return fields_.fail(Code::kUnimplemented,
                          "tokenizer.ggml.pre is " + (pre ? quote(*pre) : "missing") +
                              " (expected one of " + pre_tokenizer_names() + ")",
                          "Convert the model again with a current converter.");
    const Texts* merges = fields_.texts("tokenizer.ggml.merges");
    if (merges == nullptr) return corrupt("lacks tokenizer.ggml.merges");
    out["normalizer"] = nullptr;
    out["pre_tokenizer"] = known->json;
    out["post_processor"] = post_processor(known->begins_text);
    out["decoder"] = Json{{"type", "ByteLevel"},
                          {"add_prefix_space", true},
                          {"trim_offsets", true},
                          {"use_regex", true}};
    out["model"] = Json{{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", known->whole_words},
                        {"vocab", vocabulary(false)},
                        {"merges", *merges}};
  }

  void sentence_piece(Json& out) {
    const bool prefix = fields_.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    Json steps = Json::array();
    if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
    steps.push_back({{"type", "Replace"}, {"pattern", Json{{"String", " "}}}, {"content", kSpace}});
    out["normalizer"] = Json{{"type", "Sequence"}, {"normalizers", std::move(steps)}};
    out["pre_tokenizer"] = nullptr;
    out["post_processor"] = post_processor(true);
    Json decoders = Json::array();
    decoders.push_back(
        {{"type", "Replace"}, {"pattern", Json{{"String", kSpace}}}, {"content", " "}});
    for (const char* type : {"ByteFallback", "Fuse"}) decoders.push_back(Json{{"type", type}});
    if (prefix)
      decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    out["decoder"] = Json{{"type", "Sequence"}, {"decoders", std::move(decoders)}};
    const std::optional<std::string> unknown = token("unknown", 0);
    out["model"] = Json{{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", unknown ? Json(*unknown) : Json(nullptr)},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", true},
                        {"byte_fallback", true},
                        {"ignore_merges", false},
                        {"vocab", vocabulary(true)},
                        {"merges", piece_merges()}};
  }

  struct Merge {
    size_t left, right, whole;
  };

  /// SentencePiece joins the two neighbours whose piece has the best score; as a list, all pairs of
  /// pieces that make a piece, the best first, and of one piece in the order of their parts.
  Json piece_merges() {
    const auto* scores = fields_.numbers("tokenizer.ggml.scores");
    if (scores == nullptr || scores->size() != tokens_.size()) {
      corrupt("tokenizer.ggml.scores has not one score a token");
      return Json::array();
    }
    std::unordered_map<std::string_view, size_t> pieces;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] != kByte) pieces.emplace(tokens_[i], i);
    }
    std::vector<Merge> merges;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] != kNormal && types_[i] != kUserDefined) continue;
      if (tokens_[i].size() > kMostPieceBytes) {
        corrupt("token " + std::to_string(i) + " is " + std::to_string(tokens_[i].size()) +
                " bytes long (expected at most " + std::to_string(kMostPieceBytes) + ")");
        return Json::array();
      }
      add_merges(i, pieces, merges);
    }
    std::stable_sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
      return (*scores)[a.whole] > (*scores)[b.whole];
    });
    Json list = Json::array();
    for (const Merge& m : merges) list.push_back(Json::array({tokens_[m.left], tokens_[m.right]}));
    return list;
  }

  void add_merges(size_t whole, const std::unordered_map<std::string_view, size_t>& pieces,
                  std::vector<Merge>& merges) {
    const std::string_view text = tokens_[whole];
    const size_t first = merges.size();
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = pieces.find(text.substr(0, cut));
      const auto right = pieces.find(text.substr(cut));
      if (left != pieces.end() && right != pieces.end())
        merges.push_back({left->second, right->second, whole});
    }
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(first), merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }

  /// The token that tokenizer.ggml.NAME_token_id names, or that of `fallback`.
  std::optional<std::string> token(const std::string& name,
                                   std::optional<int64_t> fallback = std::nullopt) {
    const std::optional<int64_t> stated = fields_.integer("tokenizer.ggml." + name + "_token_id");
    const std::optional<int64_t> id = stated ? stated : fallback;
    if (!id || *id < 0 || *id >= static_cast<int64_t>(tokens_.size())) return std::nullopt;
    id_ = *id;
    return tokens_[static_cast<size_t>(*id)];
  }

  /// Tokens put around a text.
  Json post_processor(bool begins_text) {
    Json single = Json::array();
    Json special = Json::object();
    const auto add = [&](const std::string& name) {
      const std::optional<std::string> content = token(name);
      if (!content) return;
      single.push_back(Json{{"SpecialToken", Json{{"id", *content}, {"type_id", 0}}}});
      special[*content] =
          Json{{"id", *content}, {"ids", Json::array({id_})}, {"tokens", Json::array({*content})}};
    };
    if (fields_.boolean("tokenizer.ggml.add_bos_token").value_or(begins_text)) add("bos");
    const Json text{{"Sequence", Json{{"id", "A"}, {"type_id", 0}}}};
    single.push_back(text);
    if (fields_.boolean("tokenizer.ggml.add_eos_token").value_or(false)) add("eos");
    if (special.empty()) return nullptr;
    const Json second{{"Sequence", Json{{"id", "B"}, {"type_id", 1}}}};
    return Json{{"type", "TemplateProcessing"},
                {"single", single},
                {"pair", Json::array({text, second})},
                {"special_tokens", std::move(special)}};
  }

  void add_config(std::map<std::string, std::string, std::less<>>& files) {
    Json config = Json::object();
    for (const char* name : {"bos", "eos", "unk", "pad"}) {
      const std::optional<std::string> content = token(std::string_view(name) == "unk"   ? "unknown"
                                                       : std::string_view(name) == "pad" ? "padding"
                                                                                         : name);
      if (content) config[std::string(name) + "_token"] = *content;
    }
    if (const std::string* chat = fields_.text("tokenizer.chat_template")) {
      const Texts* named = fields_.texts("tokenizer.chat_templates");
      Json list = Json::array();
      list.push_back({{"name", "default"}, {"template", *chat}});
      for (const std::string& name : named ? *named : Texts()) {
        const std::string* text = fields_.text("tokenizer.chat_template." + name);
        if (text != nullptr && name != "default")
          list.push_back({{"name", name}, {"template", *text}});
      }
      config["chat_template"] = list.size() == 1 ? Json(*chat) : std::move(list);
    }
    if (!config.empty()) files["tokenizer_config.json"] = write_json(config, {.indent = 2}) + "\n";
  }

  GgufFields& fields_;
  const Texts& tokens_;
  std::vector<int64_t> types_;
  int64_t id_ = 0;  // of the last token()
};

}  // namespace

Status gguf_vocabulary(const GgufMetadata& metadata, const std::string& label,
                       std::map<std::string, std::string, std::less<>>& files) {
  GgufFields fields(metadata, label);
  const std::string* model = fields.text("tokenizer.ggml.model");
  const Texts* tokens = fields.texts("tokenizer.ggml.tokens");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (model == nullptr || tokens == nullptr || *model == "none" || *model == "no_vocab") return {};
  if (*model != "gpt2" && *model != "llama")
    return {Code::kUnimplemented,
            label + ": tokenizer.ggml.model is " + quote(*model) + " (expected gpt2 or llama)",
            "Use the model in safetensors, with its tokenizer.json."};
  return VocabularyMaker(fields, *tokens).run(*model, files);
}

}  // namespace chimera
