#include "composition_file.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <sstream>

#include "base/json/writer.h"
#include "base/yaml/tree.h"

namespace chimera::cli {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr std::string_view kBlock = "composition";

/// A plain scalar as the type that YAML gives it; quoted ones stay text.
Json scalar(const YamlNode& node) {
  const std::string& text = node.text;
  if (!node.plain) return text;
  if (text == "true" || text == "false") return text == "true";
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (const auto r = std::from_chars(text.data(), end, integer);
      r.ec == std::errc() && r.ptr == end)
    return integer;
  double real = 0;
  const bool digit = text.find_first_of("0123456789") != std::string::npos;
  if (const auto r = std::from_chars(text.data(), end, real);
      digit && r.ec == std::errc() && r.ptr == end) {
    return real;
  }
  return text;
}

const YamlNode* find(const YamlNode& map, std::string_view key) {
  for (const YamlEntry& entry : map.entries) {
    if (entry.key.text == key) return &entry.value;
  }
  return nullptr;
}

void make_paths_absolute(Json& composition, const std::filesystem::path& base) {
  Json* modules = composition.find("modules");
  if (modules == nullptr) return;
  for (Json& module : *modules) {
    Json* path = module.find("path");
    if (path == nullptr || !path->is_string()) continue;
    *path = (base / *path->string()).lexically_normal().string();
  }
}

std::filesystem::path directory_of(const std::string& file) {
  std::error_code ignored;
  return file == "-" ? std::filesystem::current_path(ignored)
                     : std::filesystem::absolute(file, ignored).parent_path();
}

}  // namespace

/// The tree as JSON, and where its keys stand.
struct CompositionFile::Converter {
  std::map<std::string, Place>& places;

  Json convert(const YamlNode& node, const std::string& path) {
    places.try_emplace(path, Place{node.line, node.column});
    switch (node.kind) {
      case YamlNode::Kind::kNull:
        return nullptr;
      case YamlNode::Kind::kScalar:
        return scalar(node);
      case YamlNode::Kind::kList: {
        Json out = Json::array();
        for (size_t i = 0; i < node.items.size(); ++i) {
          out.push_back(convert(node.items[i], fmt::format("{}[{}]", path, i)));
        }
        return out;
      }
      case YamlNode::Kind::kMap:
        break;
    }
    Json out = Json::object();
    for (const auto& [key, value] : node.entries) {
      const std::string name = path.empty() ? key.text : path + "." + key.text;
      places.try_emplace(name, Place{key.line, key.column});
      out[key.text] = convert(value, name);
    }
    return out;
  }
};

std::variant<CompositionFile, Error> CompositionFile::read(const std::string& file) {
  auto text = read_whole(file, kMaxFileBytes);
  if (auto* error = std::get_if<Error>(&text)) return *error;
  YamlProblems problems(file);
  const Result<YamlNode> root = parse_yaml(std::get<std::string>(text), file, problems);
  const Status status = root.ok() ? problems.status("correct the file") : root.status();
  if (!status.ok()) return Error("invalid_argument", status.message(), status.hint());
  if (root->kind != YamlNode::Kind::kMap) {
    return Error("invalid_argument", file + ":1:1: no map of keys (expected a composition)",
                 "see configs/demo.yaml");
  }
  CompositionFile out;
  out.file_ = file;
  const YamlNode* block = find(*root, kBlock);
  const bool whole = find(*root, "backbone") != nullptr || find(*root, "chimera") != nullptr ||
                     (block != nullptr && root->entries.size() > 1);
  out.bare_ = !whole && block == nullptr;
  const YamlNode& composition = block != nullptr ? *block : *root;
  if ((whole && block == nullptr) || find(composition, "modules") == nullptr) {
    return Error("invalid_argument",
                 fmt::format("{}:{}:{}: no {}modules (expected a list of them)", file,
                             composition.line, composition.column, whole ? "composition." : ""),
                 "`modules: []` takes all of them out");
  }
  Json value = Converter{out.places_}.convert(*root, out.bare_ ? std::string(kBlock) : "");
  const std::filesystem::path directory = directory_of(file);
  Json& inner = out.bare_ ? value : value[std::string(kBlock)];
  make_paths_absolute(inner, directory);
  if (whole) {
    out.wish_.deployment_json = write_json(value);
    out.wish_.directory = directory.string();
  } else {
    out.wish_.composition_json = write_json(inner);
  }
  return out;
}

std::string CompositionFile::located(const std::string& message) const {
  std::string out;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    // A key that is not there is told at the one that should hold it.
    std::string key = line.substr(0, line.find(": "));
    auto place = places_.find(key);
    while (place == places_.end() && key.find_last_of(".[") != std::string::npos) {
      key.resize(key.find_last_of(".["));
      place = places_.find(key);
    }
    if (!out.empty()) out += '\n';
    if (place != places_.end() && !key.empty()) {
      out += fmt::format("{}:{}:{}: ", file_, place->second.line, place->second.column);
      if (bare_ && line.starts_with("composition.")) line.erase(0, kBlock.size() + 1);
    }
    out += line;
  }
  return out;
}

}  // namespace chimera::cli
