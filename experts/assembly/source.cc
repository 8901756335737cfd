#include "experts/assembly/source.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/io/digest.h"
#include "base/quote.h"
#include "experts/assembly/misfits.h"
#include "experts/assembly/recipe/recipe.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

Result<Recipe> read_own_recipe(const std::string& dir, const Manifest& manifest) {
  const std::string& path = manifest.assembly->recipe;
  const Result<ModuleFile> file = ModuleFile::open(dir, path);
  if (!file.ok()) return file.status();
  const Result<std::string> text = file->text(kMaxRecipeBytes);
  if (!text.ok()) return text.status();
  for (const ManifestFile& entry : manifest.files) {
    if (entry.path != path || entry.sha256.empty()) continue;
    const std::string found = sha256_of(*text);
    if (found == entry.sha256) break;
    return Status(Code::kDataCorrupt,
                  fmt::format("{}: found {} (expected {}, as module.yaml says)", file->label(),
                              found, entry.sha256),
                  "If the change is meant, run `chimera module seal`.");
  }
  return parse_recipe(*text, file->label(), std::filesystem::path(file->label()).parent_path());
}

/// The digests that the manifest lists, in the order of the recipe.
Result<std::vector<std::string>> listed_digests(const std::string& dir, const Manifest& manifest,
                                                const Recipe& recipe) {
  std::vector<std::string> digests;
  Misfits misfits;
  const auto& listed = manifest.assembly->parents;
  for (const RecipeParent& parent : recipe.parents) {
    const auto at = std::find_if(listed.begin(), listed.end(),
                                 [&](const auto& one) { return one.path == parent.path; });
    if (at == listed.end()) {
      misfits.add(quote(parent.path) + " is a parent of the recipe and not listed");
    } else {
      digests.push_back(at->digest);
    }
  }
  for (const AssemblySpec::Parent& one : listed) {
    const bool known = std::any_of(recipe.parents.begin(), recipe.parents.end(),
                                   [&](const auto& parent) { return parent.path == one.path; });
    if (!known) misfits.add(quote(one.path) + " is listed and no parent of the recipe");
  }
  if (misfits.empty()) return digests;
  return misfits.status(Code::kInvalidArgument,
                        dir + "/module.yaml: assembly.parents are not those of the recipe",
                        "List each parent once, with the path that the recipe has.");
}

/// What the module says of itself against what its base is.
Status check_base(const std::string& dir, const Manifest& manifest, const Parent& base) {
  const Attach attach = base.is_module() ? base.manifest().attach : Attach::kReplace;
  if (manifest.attach == attach) return {};
  return {Code::kFailedPrecondition,
          fmt::format("{}/module.yaml: attach: found {} (expected {}, as the base is {})", dir,
                      kAttachNames.name(manifest.attach), kAttachNames.name(attach),
                      base.is_module() ? "a module that does" : "a checkpoint")};
}

bool same(const FileIdentity& was, const struct stat& is) {
  const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return was.device == is.st_dev && was.inode == is.st_ino &&
         was.size == static_cast<uint64_t>(is.st_size) && was.modified_ns == ns(is.st_mtim) &&
         was.changed_ns == ns(is.st_ctim);
}

}  // namespace

Result<std::shared_ptr<const AssemblySource>> AssemblySource::open(const std::string& dir,
                                                                   const Manifest& manifest) {
  Result<Recipe> recipe = read_own_recipe(dir, manifest);
  if (!recipe.ok()) return recipe.status();
  if (recipe->module.empty()) recipe->module = manifest.name;
  if (recipe->module != manifest.name) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: output.module: found {} (expected {}, as module.yaml says)",
                              recipe->label, recipe->module, manifest.name));
  }
  Result<std::vector<std::string>> digests = listed_digests(dir, manifest, *recipe);
  if (!digests.ok()) return digests.status();
  Result<AssemblyPlan> plan = plan_assembly(std::move(*recipe), UINT64_MAX);
  if (!plan.ok()) return plan.status();
  CHIMERA_RETURN_IF_ERROR(check_base(dir, manifest, *plan->parents[0]));
  return std::shared_ptr<const AssemblySource>(
      new AssemblySource(std::move(*plan), std::move(*digests)));
}

Status AssemblySource::verify() const {
  // On this thread alone: it is in the background, others would not be.
  ThreadPool pool(1);
  for (size_t i = 0; i < digests_.size(); ++i) {
    const Result<std::string> found = parent_digest(*plan_.parents[i], "", pool);
    if (!found.ok()) return found.status();
    if (*found == digests_[i]) continue;
    return {Code::kDataCorrupt,
            fmt::format("{}: parent {}: found {} (expected {}, as module.yaml says)",
                        recipe().label, plan_.parents[i]->path(), *found, digests_[i]),
            "Put the parent back; if the change is meant, run `chimera module seal`."};
  }
  return check_unchanged();
}

Status AssemblySource::check_unchanged() const {
  for (const auto& parent : plan_.parents) {
    for (const TensorFile* file : parent->files()) {
      struct stat is {};
      if (::stat(file->path().c_str(), &is) == 0 && same(file->identity(), is)) continue;
      return {Code::kFailedPrecondition,
              file->path() + ": found it changed (expected a parent that stays as it was loaded)",
              "`chimera load` reads it anew, if it is still the one that module.yaml names"};
    }
  }
  return {};
}

Result<AssemblyPlan> AssemblySource::plan(const Lambdas& lambdas) const {
  if (lambdas.empty() || lambdas == lambdas_) return plan_;
  Result<Recipe> recipe = with_lambdas(plan_.recipe, lambdas);
  if (!recipe.ok()) return recipe.status();
  return plan_assembly(std::move(*recipe), plan_.parents);
}

Result<std::vector<AssemblySpec::Parent>> recipe_parents(const Recipe& recipe,
                                                         const std::string& cache_dir,
                                                         ThreadPool& pool) {
  std::vector<AssemblySpec::Parent> out;
  for (size_t i = 0; i < recipe.parents.size(); ++i) {
    const Result<Parent> parent = Parent::open(recipe.parent_path(i));
    if (!parent.ok()) return parent.status();
    Result<std::string> digest = parent_digest(*parent, cache_dir, pool);
    if (!digest.ok()) return digest.status();
    out.push_back({recipe.parents[i].path, std::move(*digest)});
  }
  return out;
}

}  // namespace chimera
