#include "experts/module/manifest_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/io/digest.h"
#include "base/limits.h"
#include "base/quote.h"
#include "base/yaml/field_value.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

// Bounds of what a manifest may ask for; far above any released model (DeepSeek-V3 has 61 layers
// and 256 experts), low enough that no count from a file can hurt.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxSlots = 65536;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxProbeBytes = 16384;
constexpr size_t kMaxShown = 60;  // bytes of a value in a message

class ManifestWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {fmt::format("{}: found {} (expected {})", named(path), found, expected)};
  }
  Problem missing(const std::string& path, std::string_view key, std::string_view) const override {
    return {fmt::format("{}: found no key {} (expected it)", named(path), key)};
  }
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override {
    return {fmt::format("{}: found the unknown key {} (expected one of {})", named(path),
                        quote(key, kMaxShown), fmt::join(known, ", "))};
  }
  std::string found(const FieldValue& value) const override {
    const std::optional<std::string_view> scalar = value.scalar();
    return scalar ? quote(*scalar, kMaxShown) : value.found();
  }

 private:
  static std::string_view named(std::string_view path) {
    return path.empty() ? "module.yaml" : path;
  }
};

const ManifestWording kWording;

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
  });
}

bool is_version(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '+' || c == '-' || c == '_';
  });
}

}  // namespace

FieldReader ManifestReader::fields(const FieldValue& map, std::string path) const {
  return {map, std::move(path), kWording, problems_};
}

Manifest ManifestReader::read(const YamlNode& root) {
  using Presence = FieldReader::Presence;
  constexpr Presence kRequired = FieldReader::kRequired;
  Manifest m;
  FieldReader top = fields(field_value(root), "");
  std::string format;
  top.word(
      "chimera", "module/1", [](std::string_view text) { return text == "module/1"; }, format,
      kRequired);
  top.word("name", "1 to 63 of a-z, 0-9, _ and -, first a letter or digit; not backbone or base",
           is_module_name, m.name, kRequired);
  top.word("version", "1 to 64 letters, digits, . + - _, e.g. 1.2.0", is_version, m.version,
           kRequired);
  text(top, "domain", 64, m.domain);
  text(top, "description", kMaxText, m.description);
  text(top, "license", kMaxText, m.license);
  top.choice("kind", kModuleKindNames, m.kind, kRequired);
  // An adapter takes nobody's place and has no gate.
  top.choice("attach", kAttachNames, m.attach,
             m.kind == ModuleKind::kLora ? FieldReader::kOptional : kRequired);
  if (const auto value = top.find("backbone", kRequired)) backbone(*value, m);
  layers(top, m);
  files(top, m);
  if (const auto value = top.find("library")) library(*value, m);
  if (const auto value = top.find("assembly")) assembly(*value, m);
  if (const auto value = top.find("shared")) shared(*value, m);
  if (const auto value = top.find("routing")) {
    FieldReader routing = fields(*value, "routing");
    int64_t top_k = 0;
    if (routing.integer({"top_k", 1, kMaxTopK}, top_k)) m.top_k = top_k;
    routing.finish();
  }
  precision(top, m);
  if (const auto value = top.find("provenance")) provenance(*value, m);
  if (const auto value = top.find("probe")) probe(*value, m);
  check_library(top, m);
  check_assembly(top, m);
  check_bundle(top, m);
  top.finish();
  return m;
}

void ManifestReader::backbone(const FieldValue& value, Manifest& m) {
  FieldReader map = fields(value, "backbone");
  digest(map, "fingerprint",
         sealing_ == Sealing::kSealed ? FieldReader::kRequired : FieldReader::kOptional,
         m.backbone_fingerprint);
  map.integer({"hidden_size", 1, kMaxHidden}, m.hidden_size, FieldReader::kRequired);
  map.finish();
}

void ManifestReader::precision(FieldReader& top, Manifest& m) {
  Precision precision{};
  if (!top.choice("precision", kPrecisionNames, precision)) return;
  m.precision = precision;
  if (m.takes_precision()) return;
  top.bad("precision", *top.find("precision"), "it in a module of kind weights or assembly alone");
}

void ManifestReader::layers(FieldReader& top, Manifest& m) {
  const std::optional<FieldValue> value = top.find("layers");
  if (!value || value->scalar() == "all") return;
  if (!value->is_list()) return top.bad("layers", *value, "all, or a list of layer numbers");
  m.layers = integers(top, *value, "layers", kMaxLayers);
}

void ManifestReader::files(FieldReader& top, Manifest& m) {
  const std::string expected = fmt::format("a list of 1 to {} files", kMostModuleFiles);
  const auto list = top.list("files", expected, FieldReader::kRequired);
  if (!list) return;
  if (list->size() == 0 || list->size() > kMostModuleFiles)
    return top.bad("files", *list, expected);
  for (size_t i = 0; i < list->size(); ++i) file((*list)[i], m);
}

void ManifestReader::file(const FieldValue& value, Manifest& m) {
  FieldReader map = fields(value, "files");
  ManifestFile file;
  const bool good = map.word(
      "path",
      "a relative path inside the module directory of letters, digits, . _ - and /, without ..",
      is_module_path, file.path, FieldReader::kRequired);
  const auto same = [&](const ManifestFile& other) { return other.path == file.path; };
  if (good && std::any_of(m.files.begin(), m.files.end(), same)) {
    map.bad("path", *map.find("path"), "every file once");
  }
  digest(map, "sha256",
         sealing_ == Sealing::kSealed ? FieldReader::kRequired : FieldReader::kOptional,
         file.sha256);
  map.finish();
  m.files.push_back(std::move(file));
}

void ManifestReader::provenance(const FieldValue& value, Manifest& m) {
  FieldReader map = fields(value, "provenance");
  if (const auto data = map.list("data", "a list of sources")) {
    for (size_t i = 0; i < data->size(); ++i) {
      const FieldValue item = (*data)[i];
      m.data_sources.push_back(item.scalar() ? std::string(*item.scalar()) : item.written());
    }
  }
  if (const auto parents = map.list("parents", "a list")) {
    for (size_t i = 0; i < parents->size(); ++i) m.parents.push_back((*parents)[i].written());
  }
  slots(map, m.original_slots);
  int64_t top_k = 0;
  if (map.integer({"num_experts_per_tok", 1, kMaxSlots}, top_k)) m.original_top_k = top_k;
  map.finish();
}

void ManifestReader::probe(const FieldValue& value, Manifest& m) {
  FieldReader map = fields(value, "probe");
  text(map, "text", kMaxProbeBytes, m.probe_text);
  double bound = 0.0;
  if (map.number({"max_bits_per_byte", 0.0, 64.0, /*min_open=*/true}, bound)) {
    m.probe_max_bits_per_byte = bound;
  }
  digest(map, "tokens_digest", FieldReader::kOptional, m.probe_tokens_digest);
  map.finish();
  if (m.probe_max_bits_per_byte && m.probe_text.empty()) {
    map.fail({"probe: found max_bits_per_byte without text (expected both or none)"});
  }
}

void ManifestReader::text(FieldReader& fields, std::string_view key, size_t max_bytes,
                          std::string& out) {
  const std::optional<FieldValue> value = fields.find(key);
  if (!value) return;
  const std::optional<std::string_view> text = value->scalar();
  if (!text || has_control(*text)) {
    fields.bad(key, *value, "text without control characters");
  } else if (text->size() > max_bytes) {
    fields.bad(key, *value, fmt::format("at most {} bytes", max_bytes));
  } else {
    out = *text;
  }
}

void ManifestReader::digest(FieldReader& fields, std::string_view key,
                            FieldReader::Presence presence, std::string& out) {
  const std::optional<FieldValue> value = fields.find(key, presence);
  if (!value) return;
  const std::optional<std::string_view> text = value->scalar();
  if (text && is_sha256(*text)) {
    out = *text;
    return;
  }
  const bool open = sealing_ == Sealing::kUnsealed && (text || value->is_null());
  if (!open) fields.bad(key, *value, "sha256: and 64 lower-case hex digits");
}

std::vector<int64_t> ManifestReader::integers(const FieldReader& fields, const FieldValue& value,
                                              std::string_view key, int64_t limit) {
  std::vector<int64_t> values;
  if (!value.is_list() || value.size() == 0) {
    fields.bad(key, value, "a list of integers");
    return values;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    int64_t number = 0;
    if (!fields.read(value[i], key, IntRange{key, 0, limit - 1}, number)) continue;
    if (!values.empty() && number <= values.back()) {
      fields.bad(key, value[i], "each number once, in ascending order");
      continue;
    }
    values.push_back(number);
  }
  return values;
}

void ManifestReader::slots(FieldReader& fields, std::map<int64_t, std::vector<int64_t>>& out) {
  constexpr std::string_view kKey = "slots";
  const std::optional<FieldValue> value = fields.find(kKey);
  if (!value) return;
  if (!value->is_map()) return fields.bad(kKey, *value, "a map from layer to a list of slots");
  for (size_t i = 0; i < value->size(); ++i) {
    const FieldEntry entry = value->entry(i);
    int64_t layer = -1;
    const char* end = entry.key.data() + entry.key.size();
    const auto [at, error] = std::from_chars(entry.key.data(), end, layer);
    if (error != std::errc() || at != end || layer < 0 || layer >= kMaxLayers) {
      const IntRange range{kKey, 0, kMaxLayers - 1};
      problems_.add(entry.at, kWording.mismatch(fields.path_of(kKey), quote(entry.key, kMaxShown),
                                                kWording.integer(range, false)));
    }
    out[layer] = integers(fields, entry.value, kKey, kMaxSlots);
  }
}

}  // namespace chimera
