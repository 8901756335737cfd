// The block `assembly` of module.yaml.
#include <algorithm>

#include "base/limits.h"
#include "experts/module/manifest_reader.h"

namespace chimera {
namespace {

constexpr size_t kMaxParentPath = 4096;  // PATH_MAX

/// The only file that ends in .yaml; "" when there is none or more than one.
std::string only_recipe(const Manifest& m) {
  std::string found;
  for (const ManifestFile& file : m.files) {
    if (!file.path.ends_with(".yaml")) continue;
    if (!found.empty()) return {};
    found = file.path;
  }
  return found;
}

}  // namespace

void ManifestReader::assembly(const FieldValue& value, Manifest& m) {
  AssemblySpec spec;
  FieldReader map = fields(value, "assembly");
  listed(map, "recipe", m, spec.recipe);
  const std::string expected = "a list of the recipe's parents, each with path and digest";
  const auto list = map.list("parents", expected, FieldReader::kRequired);
  if (list && (list->size() == 0 || list->size() > kMaxParents)) {
    map.bad("parents", *list, expected);
  } else if (list) {
    for (size_t i = 0; i < list->size(); ++i) {
      FieldReader item = fields((*list)[i], "assembly.parents");
      AssemblySpec::Parent parent;
      item.find("path", FieldReader::kRequired);
      text(item, "path", kMaxParentPath, parent.path);
      digest(item, "digest",
             sealing_ == Sealing::kSealed ? FieldReader::kRequired : FieldReader::kOptional,
             parent.digest);
      item.finish();
      spec.parents.push_back(std::move(parent));
    }
  }
  map.finish();
  m.assembly = std::move(spec);
}

void ManifestReader::check_assembly(FieldReader& top, Manifest& m) {
  const std::optional<FieldValue> block = top.find("assembly");
  const Place at = block ? block->place() : top.at().place();
  const auto note = [&](std::string text) { problems_.add(at, {std::move(text)}); };
  if (m.kind != ModuleKind::kAssembly) {
    if (block) {
      note("assembly: found it in a module of kind " + kModuleKindNames.text(m.kind) +
           " (expected no such key)");
    }
    return;
  }
  if (!m.assembly) return note("assembly: found nothing (expected the recipe and its parents)");
  if (m.assembly->recipe.empty()) m.assembly->recipe = only_recipe(m);
  if (m.assembly->recipe.empty()) {
    note(
        "assembly.recipe: found nothing (expected the recipe among `files`, as there is not "
        "exactly one .yaml)");
  }
}

}  // namespace chimera
