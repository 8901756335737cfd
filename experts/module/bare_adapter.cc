#include "experts/module/bare_adapter.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/io/digest.h"
#include "base/quote.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

// Of the digest, in a derived version: enough to tell versions apart.
constexpr size_t kVersionDigits = 12;
constexpr size_t kLongestName = 63;

bool exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

/// The last part of an absolute path as a module may be called.
std::string module_name_of(const std::string& dir) {
  std::string name = std::filesystem::path(dir).lexically_normal().filename().string();
  if (name.empty()) {
    name = std::filesystem::path(dir).lexically_normal().parent_path().filename().string();
  }
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!fits) c = '-';
  }
  name.erase(0, name.find_first_not_of("-_"));
  if (name.size() > kLongestName) name.resize(kLongestName);
  return name;
}

}  // namespace

bool is_bare_adapter(const std::string& dir) {
  return !exists(dir + "/module.yaml") && exists(dir + "/" + kAdapterConfigFile);
}

Result<Manifest> bare_adapter_manifest(const std::string& dir) {
  Manifest m;
  m.name = module_name_of(dir);
  if (!is_module_name(m.name)) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: found no module name in {} (expected letters or digits, and not "
                              "backbone or base)",
                              dir, quote(m.name)),
                  "An adapter without module.yaml is named after its directory: rename that.");
  }
  if (!exists(dir + "/" + kAdapterTensorsFile)) {
    const bool pickled = exists(dir + "/adapter_model.bin");
    return Status(pickled ? Code::kUnimplemented : Code::kNotFound,
                  fmt::format("{}: found {} (expected {})", dir,
                              pickled ? "adapter_model.bin" : "adapter_config.json alone",
                              kAdapterTensorsFile),
                  pickled
                      ? "Save it again with a PEFT of version 0.5 or later; what Python pickled "
                        "is code."
                      : "");
  }
  m.version = "0";
  m.kind = ModuleKind::kLora;
  m.files = {{kAdapterConfigFile, ""}, {kAdapterTensorsFile, ""}};
  m.derived = true;
  return m;
}

Status complete_manifest(const std::string& dir, DigestMemo* digests, Manifest* manifest) {
  if (!manifest->derived) return {};
  for (ManifestFile& entry : manifest->files) {
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    if (entry.path != kAdapterTensorsFile) {
      Result<std::string> digest = file->sha256();
      if (!digest.ok()) return digest.status();
      entry.sha256 = std::move(*digest);
      continue;
    }
    const Result<SafetensorsFile> tensors = file->header();
    if (!tensors.ok()) return tensors.status();
    entry.sha256 = tensors->sha256(digests);
  }
  manifest->version = "0";
  const std::string digest = sha256_of(manifest_yaml(*manifest));
  manifest->version = digest.substr(digest.find(':') + 1, kVersionDigits);
  manifest->digest = digest;
  return {};
}

}  // namespace chimera
