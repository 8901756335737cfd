// The block `library` of module.yaml.
#include <algorithm>

#include "experts/module/manifest_reader.h"

namespace chimera {
namespace {

constexpr size_t kMaxConfig = 65536;
constexpr int64_t kMaxDeadlineMs = 3'600'000;
constexpr int64_t kMaxMemoryMib = 1 << 20;

int64_t default_deadline_ms(Isolation isolation) {
  switch (isolation) {
    case Isolation::kProcess:
      return LibrarySpec().deadline_ms;
    case Isolation::kInProcess:
      return kInProcessDeadlineMs;
  }
  return LibrarySpec().deadline_ms;
}

bool lists(const Manifest& m, std::string_view path) {
  return std::any_of(m.files.begin(), m.files.end(),
                     [&](const ManifestFile& file) { return file.path == path; });
}

/// The only file that ends in .so; "" when there is none or more than one.
std::string only_library(const Manifest& m) {
  std::string found;
  for (const ManifestFile& file : m.files) {
    if (!file.path.ends_with(".so")) continue;
    if (!found.empty()) return {};
    found = file.path;
  }
  return found;
}

}  // namespace

void ManifestReader::library(const FieldValue& value, Manifest& m) {
  LibrarySpec spec;
  FieldReader map = fields(value, "library");
  listed(map, "file", m, spec.file);
  map.word("id", "1 to 127 of a-z, 0-9, . _ and -, first a letter or digit, e.g. com.example.law",
           is_plugin_id, spec.id);
  map.choice("isolation", kIsolationNames, spec.isolation);
  map.choice("on_failure", kFailurePolicyNames, spec.on_failure);
  listed(map, "gate", m, spec.gate);
  text(map, "config", kMaxConfig, spec.config);
  spec.deadline_ms = default_deadline_ms(spec.isolation);
  map.integer({"deadline_ms", 1, kMaxDeadlineMs}, spec.deadline_ms);
  map.integer({"memory_mib", 0, kMaxMemoryMib}, spec.memory_mib);
  slots(map, spec.slots);
  map.finish();
  m.library = std::move(spec);
}

void ManifestReader::listed(FieldReader& fields, std::string_view key, const Manifest& m,
                            std::string& out) {
  const std::optional<FieldValue> value = fields.find(key);
  if (!value) return;
  const std::optional<std::string_view> path = value->scalar();
  if (!path || !lists(m, *path)) return fields.bad(key, *value, "the path of one of `files`");
  out = *path;
}

void ManifestReader::check_library(FieldReader& top, Manifest& m) {
  const std::optional<FieldValue> block = top.find("library");
  const Place at = block ? block->place() : top.at().place();
  const auto note = [&](std::string text) { problems_.add(at, {std::move(text)}); };
  if (m.kind != ModuleKind::kLibrary) {
    if (block) {
      note("library: found it in a module of kind " + kModuleKindNames.text(m.kind) +
           " (expected no such key)");
    }
    return;
  }
  if (!m.library) m.library.emplace();
  LibrarySpec& spec = *m.library;
  if (spec.file.empty()) spec.file = only_library(m);
  if (spec.file.empty()) {
    note(
        "library.file: found nothing (expected the .so among `files`, as there is not exactly "
        "one)");
  }
  if (spec.gate.empty() && lists(m, "gate.safetensors")) spec.gate = "gate.safetensors";
  if (!spec.gate.empty() && !spec.gate.ends_with(".safetensors")) {
    note("library.gate: found " + spec.gate + " (expected a .safetensors file)");
  }
  if ((m.attach == Attach::kReplace) == spec.slots.empty()) {
    note(spec.slots.empty()
             ? "library.slots: found nothing (expected the slots of each layer, as attach: replace)"
             : "library.slots: found it (expected it beside attach: replace only)");
  }
}

}  // namespace chimera
