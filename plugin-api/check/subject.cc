#include "check/subject.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace chimera::check {
namespace {

constexpr uint64_t kMaxLibrary = uint64_t{1} << 30;
constexpr uint64_t kMaxManifest = 1u << 20;
constexpr uint64_t kMaxTensors = uint64_t{8} << 30;

std::string text_of(const YAML::Node& node, const char* key) {
  return node[key] && node[key].IsScalar() ? node[key].Scalar() : std::string();
}

void read_library_block(const YAML::Node& root, ModuleManifest& m) {
  if (const YAML::Node block = root["library"]; block && block.IsMap()) {
    m.library = text_of(block, "file");
    m.id = text_of(block, "id");
    m.gate = text_of(block, "gate");
    m.config = text_of(block, "config");
    if (block["memory_mib"]) m.memory_bytes = block["memory_mib"].as<uint64_t>() << 20;
  }
  for (const ModuleFile& f : m.files) {
    if (m.library.empty() && f.path.ends_with(".so")) m.library = f.path;
    if (m.gate.empty() && f.path == "gate.safetensors") m.gate = f.path;
  }
}

/// The fields of module.yaml; yaml-cpp throws on what is malformed.
ModuleManifest read_manifest(const std::string& yaml) {
  const YAML::Node root = YAML::Load(yaml);
  ModuleManifest m;
  if (!root.IsMap()) throw YAML::Exception(YAML::Mark::null_mark(), "expected a map");
  if (text_of(root, "chimera") != "module/1") {
    throw YAML::Exception(YAML::Mark::null_mark(), "chimera: found \"" + text_of(root, "chimera") +
                                                       "\" (expected module/1)");
  }
  m.name = text_of(root, "name");
  m.version = text_of(root, "version");
  m.kind = text_of(root, "kind");
  m.domain = text_of(root, "domain");
  if (const YAML::Node b = root["backbone"]; b && b.IsMap()) {
    m.fingerprint = text_of(b, "fingerprint");
    if (b["hidden_size"]) m.hidden_size = b["hidden_size"].as<int64_t>();
  }
  if (root["layers"] && root["layers"].IsSequence()) {
    m.layers = root["layers"].as<std::vector<int64_t>>();
  }
  if (root["files"] && root["files"].IsSequence()) {
    for (const auto& f : root["files"])
      m.files.push_back({text_of(f, "path"), text_of(f, "sha256")});
  }
  read_library_block(root, m);
  return m;
}

/// Module directory: manifest, library path, tensors. A text when nothing can be checked.
std::string open_module(const std::string& dir, Subject& s) {
  s.module_dir = dir;
  const auto yaml = read_file(dir + "/module.yaml", kMaxManifest);
  if (!yaml) return dir + "/module.yaml: cannot be read (expected a module of kind library)";
  try {
    s.manifest = read_manifest(*yaml);
  } catch (const std::exception& e) {
    return fmt::format("{}/module.yaml: {}", dir, e.what());
  }
  if (s.manifest->kind != "library") {
    return fmt::format("{}/module.yaml: kind: found \"{}\" (expected library)", dir,
                       s.manifest->kind);
  }
  if (s.manifest->library.empty()) {
    return dir + "/module.yaml: files: found no .so (expected the library of the module)";
  }
  s.library = dir + "/" + s.manifest->library;
  for (const ModuleFile& f : s.manifest->files) {
    if (!f.path.ends_with(".safetensors") || f.path == s.manifest->gate) continue;
    auto bytes = read_file(dir + "/" + f.path, kMaxTensors);
    if (!bytes) {
      s.tensor_problem = f.path + ": cannot be read";
      continue;
    }
    auto file = parse_tensor_file(f.path, std::move(*bytes));
    if (auto* problem = std::get_if<std::string>(&file)) {
      s.tensor_problem = *problem;
    } else {
      s.tensor_files.push_back(std::move(std::get<TensorFile>(file)));
    }
  }
  return {};
}

std::string open_reference(const std::string& path, Subject& s) {
  const std::string file =
      std::filesystem::is_directory(path) ? path + "/weights.safetensors" : path;
  auto bytes = read_file(file, kMaxTensors);
  if (!bytes) return file + ": cannot be read (expected the reference weights, safetensors)";
  auto parsed = parse_tensor_file(file, std::move(*bytes));
  if (auto* problem = std::get_if<std::string>(&parsed)) return *problem;
  s.reference = std::move(std::get<TensorFile>(parsed));
  return {};
}

}  // namespace

std::optional<std::string> read_file(const std::string& path, uint64_t limit) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;
  if (std::filesystem::file_size(path, error) > limit || error) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::variant<Subject, std::string> open_subject(const SubjectOptions& options) {
  Subject s;
  s.tolerance = options.tolerance;
  s.allowed_libraries = options.allowed_libraries;
  std::error_code error;
  const std::string path = std::filesystem::canonical(options.path, error).string();
  if (error)
    return options.path + ": " + error.message() + " (expected a module directory or a .so)";
  if (std::filesystem::is_directory(path)) {
    if (std::string problem = open_module(path, s); !problem.empty()) return problem;
  } else {
    s.library = path;
  }
  auto bytes = read_file(s.library, kMaxLibrary);
  if (!bytes) return s.library + ": cannot be read (expected a shared library of at most 1 GiB)";
  s.bytes = std::move(*bytes);
  if (!options.reference.empty()) {
    if (std::string problem = open_reference(options.reference, s); !problem.empty())
      return problem;
  }
  return s;
}

}  // namespace chimera::check
