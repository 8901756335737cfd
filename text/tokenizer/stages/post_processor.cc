#include "text/tokenizer/stages/post_processor.h"

#include <fmt/format.h>

#include "base/json/writer.h"

namespace chimera::tokenizer {
namespace {

constexpr std::string_view kSupportedPostProcessors =
    "ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing, Sequence";
// Templates hold a handful of ids; what they add to every prompt must stay small.
constexpr size_t kMaxAdded = 1024;

Status unknown_id(const std::string& where, int64_t id) {
  return Status(Code::kDataCorrupt,
                fmt::format("{}: token id {} is not in the vocabulary", where, id));
}

}  // namespace

Result<PostProcessor> PostProcessor::from_json(const Json& json, const Vocabulary& vocabulary) {
  PostProcessor result;
  CHIMERA_RETURN_IF_ERROR(result.read(json, "post_processor", vocabulary));
  return result;
}

Status PostProcessor::read(const Json& json, const std::string& where,
                           const Vocabulary& vocabulary) {
  if (json.is_null()) return {};
  Fields fields(json, where);
  const std::string type = fields.string("type");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence") {
    const Json* members = fields.array("processors");
    for (size_t i = 0; i < members->size(); ++i) {
      CHIMERA_RETURN_IF_ERROR(
          read((*members)[i], fmt::format("{}.processors[{}]", where, i), vocabulary));
    }
  } else if (type == "TemplateProcessing") {
    CHIMERA_RETURN_IF_ERROR(read_template(fields, vocabulary));
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    int32_t first = 0;
    int32_t last = 0;
    CHIMERA_RETURN_IF_ERROR(read_pair(fields, "cls", vocabulary, first));
    CHIMERA_RETURN_IF_ERROR(read_pair(fields, "sep", vocabulary, last));
    prefix_.insert(prefix_.begin(), first);
    suffix_.push_back(last);
  } else if (type != "ByteLevel") {  // which only moves offsets
    return unsupported_component(where, type, kSupportedPostProcessors);
  }
  if (prefix_.size() + suffix_.size() > kMaxAdded) {
    fields.fail(fmt::format("adds more than {} tokens to every text", kMaxAdded));
  }
  return fields.status();
}

// "cls": ["<s>", 0]
Status PostProcessor::read_pair(Fields& fields, const char* key, const Vocabulary& vocabulary,
                                int32_t& id) {
  const Json& pair = *fields.array(key);
  CHIMERA_RETURN_IF_ERROR(fields.status());
  const std::optional<uint64_t> stated = pair[1].natural();
  if (pair.size() != 2 || !stated) {
    fields.fail(fmt::format("\"{}\" is {}, expected [token, id]", key, write_json(pair)));
    return fields.status();
  }
  const uint64_t value = *stated;
  if (value > uint64_t{kMaxTokenId} || !vocabulary.contains(static_cast<int32_t>(value))) {
    return unknown_id(fields.where(), static_cast<int64_t>(value));
  }
  id = static_cast<int32_t>(value);
  return {};
}

// The "single" template: special tokens before and after one Sequence A.
Status PostProcessor::read_template(Fields& fields, const Vocabulary& vocabulary) {
  const Json& pieces = *fields.array("single");
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int sequences = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    Fields piece(pieces[i], fmt::format("{}.single[{}]", fields.where(), i));
    if (piece.has("Sequence")) {
      ++sequences;
      continue;
    }
    const Json* special = piece.object("SpecialToken");
    CHIMERA_RETURN_IF_ERROR(piece.status());
    Fields reference(*special, piece.where() + ".SpecialToken");
    const std::string name = reference.string("id");
    CHIMERA_RETURN_IF_ERROR(reference.status());
    Fields tokens(*fields.object("special_tokens"), fields.where() + ".special_tokens");
    CHIMERA_RETURN_IF_ERROR(fields.status());
    Fields token(*tokens.object(name.c_str()), fields.where() + ".special_tokens." + name);
    CHIMERA_RETURN_IF_ERROR(tokens.status());
    const Json& ids = *token.array("ids");
    CHIMERA_RETURN_IF_ERROR(token.status());
    for (const Json& id : ids) {
      const uint64_t value = id.natural().value_or(UINT64_MAX);
      if (value > uint64_t{kMaxTokenId} || !vocabulary.contains(static_cast<int32_t>(value))) {
        return unknown_id(token.where(), static_cast<int64_t>(value));
      }
      (sequences == 0 ? before : after).push_back(static_cast<int32_t>(value));
    }
  }
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (sequences != 1) {
    return Status(Code::kUnimplemented,
                  fmt::format("{}: \"single\" holds {} sequences; supported is one", fields.where(),
                              sequences));
  }
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
  return {};
}

}  // namespace chimera::tokenizer
