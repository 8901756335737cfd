#include "composition_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <filesystem>

#include "base/json/writer.h"

namespace chimera::cli {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr int kMaxDepth = 32;
// Aliases may make a small file large; no composition has so many values.
constexpr size_t kMaxValues = 10'000;

/// A plain scalar as the type that YAML gives it; quoted ones stay text.
Json scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text == "true" || text == "false") return text == "true";
  if (text.empty() || text == "~" || text == "null") return nullptr;
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

Json convert(const YAML::Node& node, int depth, size_t& values) {
  if (depth > kMaxDepth) throw YAML::Exception(node.Mark(), "nested too deeply");
  if (++values > kMaxValues) throw YAML::Exception(node.Mark(), "too many values");
  if (node.IsMap()) {
    Json out = Json::object();
    for (const auto& item : node) {
      if (out.contains(item.first.Scalar())) {
        throw YAML::Exception(item.first.Mark(), "key " + item.first.Scalar() + " given twice");
      }
      out[item.first.Scalar()] = convert(item.second, depth + 1, values);
    }
    return out;
  }
  if (node.IsSequence()) {
    Json out = Json::array();
    for (const auto& item : node) out.push_back(convert(item, depth + 1, values));
    return out;
  }
  return node.IsScalar() ? scalar(node) : Json();
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

}  // namespace

std::variant<std::string, Error> read_composition_file(const std::string& file) {
  auto text = read_whole(file, kMaxFileBytes);
  if (auto* error = std::get_if<Error>(&text)) return *error;
  Json value;
  try {
    size_t values = 0;
    value = convert(YAML::Load(std::get<std::string>(text)), 0, values);
  } catch (const YAML::Exception& problem) {
    return Error{"invalid_argument",
                 fmt::format("{}:{}:{}: {} (expected YAML)", file, problem.mark.line + 1,
                             problem.mark.column + 1, problem.msg),
                 "correct the file"};
  }
  if (!value.is_object()) {
    return Error{"invalid_argument", file + ": no mapping (expected a composition)",
                 "see configs/demo.yaml"};
  }
  const bool deployment = value.contains("composition") || value.contains("backbone");
  Json composition = deployment ? std::as_const(value)["composition"] : value;
  if (composition.is_null()) composition = Json::object();
  std::error_code ignored;
  const auto base = file == "-" ? std::filesystem::current_path(ignored)
                                : std::filesystem::absolute(file, ignored).parent_path();
  make_paths_absolute(composition, base);
  return write_json(composition);
}

}  // namespace chimera::cli
