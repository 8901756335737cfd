#include "experts/module/manifest.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/io/digest.h"
#include "base/limits.h"
#include "base/yaml/tree.h"
#include "experts/module/bare_adapter.h"
#include "experts/module/files.h"
#include "experts/module/manifest_reader.h"

namespace chimera {
namespace {

constexpr std::string_view kHint = "experts/legal/module.yaml is a complete example.";

}  // namespace

bool is_module_name(std::string_view name) {
  const auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > 63 || name == "backbone" || name == "base") return false;
  return letter_or_digit(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
           return letter_or_digit(c) || c == '_' || c == '-';
         });
}

bool is_plugin_id(std::string_view id) {
  const auto inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !id.empty() && id.size() <= 127 && std::all_of(id.begin(), id.end(), inner) &&
         id.front() != '.' && id.front() != '_' && id.front() != '-';
}

bool is_module_path(std::string_view path) {
  if (path.empty() || path.size() > 255) return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
  });
}

Result<Manifest> parse_manifest(std::string_view yaml, const std::string& label, Sealing sealing) {
  if (yaml.size() > kMaxManifestBytes) {
    return Status(Code::kInvalidArgument, fmt::format("{}: found {} bytes (expected at most {})",
                                                      label, yaml.size(), kMaxManifestBytes));
  }
  YamlProblems problems(label);
  Result<YamlNode> root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  Manifest manifest = ManifestReader(problems, sealing).read(*root);
  if (!problems.empty()) return problems.status(std::string(kHint));
  manifest.digest = sha256_of(yaml);
  return manifest;
}

std::optional<int64_t> Manifest::fitted_top_k() const {
  if (top_k || !original_top_k || *original_top_k > kMaxTopK) return top_k;
  return original_top_k;
}

Result<Manifest> read_manifest(const std::string& dir, Sealing sealing) {
  if (is_bare_adapter(dir)) return bare_adapter_manifest(dir);
  const Result<ModuleFile> file = ModuleFile::open(dir, "module.yaml");
  if (!file.ok()) return file.status();
  const Result<std::string> text = file->text(kMaxManifestBytes);
  if (!text.ok()) return text.status();
  return parse_manifest(*text, dir + "/module.yaml", sealing);
}

}  // namespace chimera
