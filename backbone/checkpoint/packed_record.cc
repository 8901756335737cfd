#include "backbone/checkpoint/packed_record.h"

#include <string_view>

#include "base/io/digest.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr size_t kMaxRecordBytes = 4096;
constexpr const char* kRecordFormat = "packed-backbone/1";
constexpr size_t kRecordKeys = 4, kRecordClasses = 3;

Status bad_record(const std::string& path, const std::string& found, const std::string& expected) {
  return {Code::kDataCorrupt, path + ": found " + found + " (expected " + expected + ")",
          "Pack the checkpoint again."};
}

std::string shown(const Json& value) { return write_json(value).substr(0, 80); }

Status read_digest(const Json& root, const char* key, const std::string& path, std::string* out) {
  const std::string* text = root[key].string();
  if (text == nullptr || !is_sha256(*text))
    return bad_record(path, quote(key) + ": " + shown(root[key]), "sha256: and 64 hex digits");
  *out = *text;
  return {};
}

Status read_plan(const Json& classes, const std::string& path, PrecisionPlan* out) {
  const auto read = [&](const char* key, Precision* precision) -> Status {
    const std::string* text = classes[key].string();
    const auto named = text == nullptr ? std::nullopt : kPrecisionNames.find(*text);
    if (!named) {
      return bad_record(path, "precision." + std::string(key) + ": " + shown(classes[key]),
                        kPrecisionNames.choices());
    }
    *precision = *named;
    return {};
  };
  if (!classes.is_object() || classes.size() != kRecordClasses)
    return bad_record(path, "precision: " + shown(classes), "experts, attention and head");
  CHIMERA_RETURN_IF_ERROR(read("experts", &out->experts));
  CHIMERA_RETURN_IF_ERROR(read("attention", &out->attention));
  return read("head", &out->head);
}

}  // namespace

Result<std::optional<PackedRecord>> read_packed_record(const std::string& dir, Env& env) {
  const std::string path = dir + "/" + kPackedRecordName;
  const Result<std::string> text = read_file(env, path, kMaxRecordBytes);
  if (text.status().code() == Code::kNotFound) return std::optional<PackedRecord>();
  if (!text.ok()) return text.status();
  const Result<Json> root = parse_json(*text);
  if (!root.ok()) return root.status().with_context(path);
  if (!root->is_object() || root->size() != kRecordKeys)
    return bad_record(path, shown(*root), "chimera, source, content and precision");
  const std::string* format = (*root)["chimera"].string();
  if (format == nullptr || *format != kRecordFormat)
    return bad_record(path, "\"chimera\": " + shown((*root)["chimera"]), quote(kRecordFormat));
  PackedRecord record;
  CHIMERA_RETURN_IF_ERROR(read_digest(*root, "source", path, &record.source));
  CHIMERA_RETURN_IF_ERROR(read_digest(*root, "content", path, &record.content));
  CHIMERA_RETURN_IF_ERROR(read_plan((*root)["precision"], path, &record.precision));
  if (same_packing(record.precision, PrecisionPlan()))
    return bad_record(path, "precision " + record.precision.name(), "a class in q8 or q4");
  return std::optional(std::move(record));
}

std::string packed_record_text(const PackedRecord& record) {
  const auto name = [](Precision p) { return kPrecisionNames.text(p); };
  const Json root = {{"chimera", kRecordFormat},
                     {"source", record.source},
                     {"content", record.content},
                     {"precision",
                      {{"experts", name(record.precision.experts)},
                       {"attention", name(record.precision.attention)},
                       {"head", name(record.precision.head)}}}};
  return write_json(root, {.indent = 2}) + "\n";
}

}  // namespace chimera
