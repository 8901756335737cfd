// seal_module: fills fingerprint and digests into a hand-written module.yaml.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/io/env.h"
#include "base/threads/thread_pool.h"
#include "base/yaml/tree.h"
#include "experts/assembly/source.h"
#include "experts/module/files.h"
#include "experts/module/manifest.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

/// One value of the text that is to become another one.
struct Edit {
  const YamlNode* at = nullptr;
  std::string value;
};

const YamlNode* find(const YamlNode& map, std::string_view key) {
  for (const auto& [name, value] : map.entries) {
    if (name.text == key) return &value;
  }
  return nullptr;
}

size_t offset_of(std::string_view text, int line, int column) {
  size_t at = 0;
  for (int l = 1; l < line && at < text.size(); ++l) {
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return std::min(at + static_cast<size_t>(column - 1), text.size());
}

/// Replaces a plain or quoted one-line scalar. An absent value has no place to write to.
bool apply(std::string& text, const Edit& edit) {
  if (edit.at == nullptr || edit.at->kind != YamlNode::Kind::kScalar) return false;
  const size_t begin = offset_of(text, edit.at->line, edit.at->column);
  if (begin >= text.size()) return false;
  const char quote = text[begin];
  size_t end = begin;
  if (quote == '"' || quote == '\'') {
    end = text.find(quote, begin + 1);
    if (end == std::string::npos || text.substr(begin, end - begin).find('\n') != std::string::npos)
      return false;
    ++end;
  } else {
    if (text.compare(begin, edit.at->text.size(), edit.at->text) != 0) return false;
    end = begin + edit.at->text.size();
  }
  text.replace(begin, end - begin, edit.value);
  return true;
}

using Edits = std::vector<std::pair<Edit, std::string>>;  // with the keys that they are of

/// The digests of an assembly's parents.
Status add_parents(const std::string& dir, const YamlNode& root, const Manifest& manifest,
                   Edits& edits) {
  const Result<Recipe> recipe = read_recipe(dir + "/" + manifest.assembly->recipe);
  if (!recipe.ok()) return recipe.status();
  ThreadPool pool(auto_threads());
  const auto parents = recipe_parents(*recipe, "", pool);
  if (!parents.ok()) return parents.status();
  for (const YamlNode& entry : find(*find(root, "assembly"), "parents")->items) {
    for (const AssemblySpec::Parent& parent : *parents) {
      if (find(entry, "path")->text != parent.path) continue;
      edits.push_back({{find(entry, "digest"), parent.digest}, "assembly.parents.digest"});
    }
  }
  return {};
}

Status no_place(const std::string& dir, const std::string& key) {
  return {Code::kNotFound,
          fmt::format("{}/module.yaml: found no value of {} (expected one to fill)", dir, key),
          "Write " + key + ": \"\" there and run again."};
}

}  // namespace

Result<Json> seal_module(const std::string& dir, const std::string& backbone_dir) {
  const Result<ModuleFile> file = ModuleFile::open(dir, "module.yaml");
  if (!file.ok()) return file.status();
  Result<std::string> text = file->text(kMaxManifestBytes);
  if (!text.ok()) return text.status();
  const std::string label = dir + "/module.yaml";
  const Result<Manifest> manifest = parse_manifest(*text, label, Sealing::kUnsealed);
  if (!manifest.ok()) return manifest.status();
  const Result<std::string> fingerprint = checkpoint_fingerprint(backbone_dir);
  if (!fingerprint.ok()) return fingerprint.status();

  YamlProblems problems(label);
  const Result<YamlNode> root = parse_yaml(*text, label, problems);
  if (!root.ok()) return root.status();
  // From the end to the front, so that earlier positions stay right.
  const YamlNode* files = find(*root, "files");
  Edits edits;
  edits.push_back(
      {{find(*find(*root, "backbone"), "fingerprint"), *fingerprint}, "backbone.fingerprint"});
  for (const YamlNode& entry : files->items) {
    const Result<ModuleFile> payload = ModuleFile::open(dir, find(entry, "path")->text);
    if (!payload.ok()) return payload.status();
    const Result<std::string> digest = payload->sha256();
    if (!digest.ok()) return digest.status();
    edits.push_back({{find(entry, "sha256"), *digest}, "files.sha256"});
  }
  if (manifest->assembly) CHIMERA_RETURN_IF_ERROR(add_parents(dir, *root, *manifest, edits));
  for (const auto& [edit, key] : edits) {
    if (edit.at == nullptr) return no_place(dir, key);
  }
  std::sort(edits.begin(), edits.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.at->line, a.first.at->column) >
           std::pair(b.first.at->line, b.first.at->column);
  });
  for (const auto& [edit, key] : edits) {
    if (!apply(*text, edit)) return no_place(dir, key);
  }
  const Result<Manifest> sealed = parse_manifest(*text, label);
  if (!sealed.ok()) return sealed.status();
  // Nothing that fails may write: the digest of a broken file must not make it look whole.
  auto report = verify_manifest(dir, *sealed, backbone_dir);
  if (!report.ok()) return report;
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), label, *text, 0644));
  return report;
}

}  // namespace chimera
