#include "text/tokenizer/model/model.h"

#include "text/tokenizer/model/bpe.h"
#include "text/tokenizer/model/unigram.h"

namespace chimera::tokenizer {
namespace {

constexpr std::string_view kSupported = "BPE, Unigram";

// Files from before 2021 leave "type" out; "merges" tells BPE from the others, "unk_id" Unigram.
std::string type_of(const Json& json) {
  Fields fields(json, "model");
  return fields.string_or("type", fields.has("merges")   ? "BPE"
                                  : fields.has("unk_id") ? "Unigram"
                                                         : "");
}

}  // namespace

bool model_reads_bytes(const Json& json) {
  return type_of(json) == "BPE" && Bpe::reads_bytes(json);
}

Status read_model_tokens(const Json& json, Vocabulary& vocabulary) {
  Fields fields(json, "model");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  const std::string type = type_of(json);
  if (type != "BPE" && type != "Unigram") return unsupported_component("model", type, kSupported);
  const Json* vocab = type == "BPE" ? fields.object("vocab") : fields.array("vocab");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  return type == "BPE" ? vocabulary.add_model_tokens(*vocab) : vocabulary.add_listed_tokens(*vocab);
}

Result<std::unique_ptr<TokenModel>> make_token_model(const Json& json, PieceForm form,
                                                     const Vocabulary& vocabulary) {
  const std::string type = type_of(json);
  if (type == "BPE") return Bpe::from_json(json, form, vocabulary);
  if (type == "Unigram") return Unigram::from_json(json, vocabulary);
  return unsupported_component("model", type, kSupported);
}

}  // namespace chimera::tokenizer
