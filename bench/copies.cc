#include "copies.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "base/io/digest.h"
#include "base/json/json.h"
#include "base/json/writer.h"

namespace chimera::bench {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeights = "weights.safetensors";

std::string digest_of(const fs::path& file) {
  const auto digest = sha256_of_file(file.string());
  if (!digest.ok()) throw std::runtime_error(digest.status().to_string());
  return *digest;
}

/// Replaces every `from`.
void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// Writes `from` to `to` with the lowest bits of some weights flipped as `number` has them: of
/// little endian floats, all of which stay what they were but for their last digit.
void write_distinct(const fs::path& from, const fs::path& to, unsigned number) {
  fs::copy_file(from, to);
  std::fstream file(to, std::ios::binary | std::ios::in | std::ios::out);
  constexpr int kBits = 16, kBytes = 4;  // of a weight, if they are F32; two weights of BF16
  for (int bit = 0; bit < kBits; ++bit) {
    if ((number >> bit & 1u) == 0) continue;
    const auto back = static_cast<std::streamoff>((bit + 1) * kBytes);
    file.seekg(-back, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-back, std::ios::end);
    file.put(byte);
  }
  if (!file) throw std::runtime_error(fmt::format("{}: cannot be written", to.string()));
}

}  // namespace

Copies::Copies(const std::string& of, int count, Weights weights) {
  std::string pattern = fs::absolute(of).parent_path().string() + "/.chimera-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error(fmt::format("{}: cannot be made", pattern));
  root_ = pattern;
  std::ifstream file(fs::path(of) / "module.yaml");
  std::stringstream text;
  text << file.rdbuf();
  for (int i = 0; i < count; ++i) copy(of, text.str(), i, weights);
}

Copies::~Copies() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

void Copies::copy(const std::string& of, const std::string& manifest, int i, Weights weights) {
  const std::string name = fmt::format("copy-{:04}", i);
  const fs::path to = fs::path(root_) / name;
  fs::create_directory(to);
  std::string text = manifest;
  for (const auto& entry : fs::directory_iterator(of)) {
    const fs::path file = entry.path().filename();
    if (file == "module.yaml") continue;
    if (weights == Weights::kLinked || file != kWeights) {
      fs::create_hard_link(entry.path(), to / file);
      continue;
    }
    write_distinct(entry.path(), to / file, static_cast<unsigned>(i + 1));
    replace_all(text, digest_of(entry.path()), digest_of(to / file));
  }
  const size_t begin = text.find("\nname:");
  if (begin == std::string::npos) throw std::runtime_error("--module: found no name in it");
  const size_t end = text.find('\n', begin + 1);
  std::ofstream(to / "module.yaml")
      << text.substr(0, begin) << "\nname: " << name << text.substr(end);
  names_.push_back(name);
}

std::string Copies::composition(size_t first, size_t count) const {
  Json modules = Json::array();
  for (size_t i = first; i < first + count; ++i) modules.push_back({{"path", path(i)}});
  return write_json(Json{{"modules", std::move(modules)}});
}

}  // namespace chimera::bench
