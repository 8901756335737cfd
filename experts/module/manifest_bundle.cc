// The block `shared` of module.yaml.
#include <algorithm>

#include "base/limits.h"
#include "experts/module/manifest_reader.h"

namespace chimera {
namespace {

constexpr std::string_view kDefaultShared = "shared.safetensors";

}  // namespace

void ManifestReader::shared(const FieldValue& value, Manifest& m) {
  SharedSpec spec;
  FieldReader map = fields(value, "shared");
  listed(map, "file", m, spec.file);
  map.number({"weight", 0.0, kMaxBundleWeight, /*min_open=*/true}, spec.weight);
  map.finish();
  m.shared = std::move(spec);
}

void ManifestReader::check_bundle(FieldReader& top, Manifest& m) {
  const std::optional<FieldValue> block = top.find("shared");
  const Place at = block ? block->place() : top.at().place();
  const auto note = [&](std::string text) { problems_.add(at, {std::move(text)}); };
  if (m.kind != ModuleKind::kBundle) {
    if (block) {
      note("shared: found it in a module of kind " + kModuleKindNames.text(m.kind) +
           " (expected no such key)");
    }
    return;
  }
  if (!m.shared) m.shared.emplace();
  SharedSpec& spec = *m.shared;
  const auto is_default = [](const ManifestFile& file) { return file.path == kDefaultShared; };
  if (spec.file.empty() && std::any_of(m.files.begin(), m.files.end(), is_default))
    spec.file = kDefaultShared;
  if (spec.file.empty()) {
    note(
        "shared.file: found nothing (expected the file with the backbone's tensors, among "
        "`files`)");
  } else if (!spec.file.ends_with(".safetensors")) {
    note("shared.file: found " + spec.file + " (expected a .safetensors file)");
  }
}

}  // namespace chimera
