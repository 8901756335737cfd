// manifest_yaml: the YAML text of a Manifest.
#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"
#include "base/yaml/tree.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

/// Whether `text` is what the reader made of a map, rather than a text that begins like one.
bool is_flow_map(const std::string& text) {
  YamlProblems problems("");
  const Result<YamlNode> node = parse_yaml(text, "", problems);
  return node.ok() && problems.empty() && node->kind == YamlNode::Kind::kMap &&
         node->flow() == text;
}

std::string slot_list(const std::vector<int64_t>& slots) {
  return fmt::format("[{}]", fmt::join(slots, ", "));
}

std::string provenance_yaml(const Manifest& m) {
  std::string out;
  if (!m.data_sources.empty()) {
    out += "  data:\n";
    for (const std::string& source : m.data_sources) {
      out += fmt::format("    - {}\n", is_flow_map(source) ? source : json_string(source));
    }
  }
  if (!m.parents.empty()) {
    out += "  parents:\n";
    for (const std::string& parent : m.parents) out += fmt::format("    - {}\n", parent);
  }
  if (!m.original_slots.empty()) {
    out += "  slots:\n";
    for (const auto& [layer, slots] : m.original_slots) {
      out += fmt::format("    {}: {}\n", layer, slot_list(slots));
    }
  }
  if (m.original_top_k) out += fmt::format("  num_experts_per_tok: {}\n", *m.original_top_k);
  return out.empty() ? out : "provenance:\n" + out;
}

std::string probe_yaml(const Manifest& m) {
  std::string out;
  if (!m.probe_text.empty()) out += fmt::format("  text: {}\n", json_string(m.probe_text));
  if (m.probe_max_bits_per_byte) {
    out += fmt::format("  max_bits_per_byte: {}\n", *m.probe_max_bits_per_byte);
  }
  if (!m.probe_tokens_digest.empty()) {
    out += fmt::format("  tokens_digest: {}\n", m.probe_tokens_digest);
  }
  return out.empty() ? out : "probe:\n" + out;
}

std::string library_yaml(const LibrarySpec& spec) {
  std::string out = fmt::format("library:\n  file: {}\n", json_string(spec.file));
  if (!spec.id.empty()) out += fmt::format("  id: {}\n", json_string(spec.id));
  out += fmt::format("  isolation: {}\n  on_failure: {}\n", kIsolationNames.name(spec.isolation),
                     kFailurePolicyNames.name(spec.on_failure));
  if (!spec.gate.empty()) out += fmt::format("  gate: {}\n", json_string(spec.gate));
  if (!spec.config.empty()) out += fmt::format("  config: {}\n", json_string(spec.config));
  out += fmt::format("  deadline_ms: {}\n  memory_mib: {}\n", spec.deadline_ms, spec.memory_mib);
  if (spec.slots.empty()) return out;
  out += "  slots:\n";
  for (const auto& [layer, slots] : spec.slots) {
    out += fmt::format("    {}: {}\n", layer, slot_list(slots));
  }
  return out;
}

std::string assembly_yaml(const AssemblySpec& spec) {
  std::string out = fmt::format("assembly:\n  recipe: {}\n  parents:\n", json_string(spec.recipe));
  for (const AssemblySpec::Parent& parent : spec.parents) {
    out += fmt::format("    - path: {}\n      digest: {}\n", json_string(parent.path),
                       parent.digest.empty() ? "\"\"" : parent.digest);
  }
  return out;
}

}  // namespace

std::string manifest_yaml(const Manifest& m) {
  std::string out = "chimera: module/1\n";
  out += fmt::format("name: {}\n", json_string(m.name));
  out += fmt::format("version: {}\n", json_string(m.version));
  if (!m.domain.empty()) out += fmt::format("domain: {}\n", json_string(m.domain));
  if (!m.description.empty()) out += fmt::format("description: {}\n", json_string(m.description));
  if (!m.license.empty()) out += fmt::format("license: {}\n", json_string(m.license));
  out += fmt::format("kind: {}\n", kModuleKindNames.name(m.kind));
  out += fmt::format("attach: {}\n", kAttachNames.name(m.attach));
  out += fmt::format("backbone:\n  fingerprint: {}\n  hidden_size: {}\n", m.backbone_fingerprint,
                     m.hidden_size);
  out += fmt::format("layers: {}\n", m.layers ? slot_list(*m.layers) : "all");
  out += "files:\n";
  for (const ManifestFile& file : m.files) {
    out += fmt::format("  - path: {}\n    sha256: {}\n", file.path, file.sha256);
  }
  if (m.library) out += library_yaml(*m.library);
  if (m.assembly) out += assembly_yaml(*m.assembly);
  if (m.shared) {
    out += fmt::format("shared:\n  file: {}\n  weight: {}\n", json_string(m.shared->file),
                       m.shared->weight);
  }
  if (m.top_k) out += fmt::format("routing:\n  top_k: {}\n", *m.top_k);
  if (m.precision) out += fmt::format("precision: {}\n", kPrecisionNames.name(*m.precision));
  return out + provenance_yaml(m) + probe_yaml(m);
}

}  // namespace chimera
