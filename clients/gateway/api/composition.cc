#include "clients/gateway/api/composition.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/limits.h"
#include "base/quote.h"

namespace chimera::gateway {
namespace {

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  while (true) {
    std::string_view part = text.substr(0, text.find(at));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
    if (text.empty()) return parts;
  }
}

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace

std::variant<Alias, ApiError> find_composition(const ModelNames& names, std::string_view model) {
  const auto alias = names.aliases.find(std::string(model));
  if (alias != names.aliases.end()) return alias->second;
  Alias found;
  if (model == names.name) return found;
  if (model.starts_with(names.name) && model.substr(names.name.size()).starts_with(':')) {
    const std::string_view modules = model.substr(names.name.size() + 1);
    found.modules.only = modules == "base" ? std::vector<std::string>() : split(modules, '+');
    if (modules == "base" || !found.modules.only->empty()) return found;
  }
  return ApiError{404, "model_not_found",
                  fmt::format("model: {} (expected {}, {}:base, {}:MODULE+MODULE or an alias)",
                              quote(model), names.name, names.name, names.name),
                  "GET /v1/models lists them", "model"};
}

void narrow(wire::ModuleFilter& filter, const wire::ModuleFilter& other) {
  if (!filter.only) {
    filter.only = other.only;
  } else if (other.only) {
    std::erase_if(*filter.only, [&](const auto& name) { return !contains(*other.only, name); });
  }
  for (const std::string& name : other.exclude) {
    if (!contains(filter.exclude, name)) filter.exclude.push_back(name);
  }
  for (const std::string& name : other.adapters) {
    if (!contains(filter.adapters, name)) filter.adapters.push_back(name);
  }
  for (const auto& [name, bias] : other.bias) filter.bias[name] = bias;
}

wire::ModuleFilter* modules_of(wire::Call& call) {
  if (auto* generate = std::get_if<wire::Generate>(&call)) return &generate->modules;
  if (auto* chat = std::get_if<wire::Chat>(&call)) return &chat->options.modules;
  if (auto* score = std::get_if<wire::Score>(&call)) return &score->modules;
  auto* embed = std::get_if<wire::Embed>(&call);
  return embed == nullptr ? nullptr : &embed->modules;
}

std::optional<ApiError> check_allowed(const wire::ModuleFilter& filter,
                                      const std::vector<std::string>& allowed) {
  const auto refuse = [](const std::string& name) {
    return ApiError{403, "permission_denied",
                    fmt::format("modules: {} (expected one that the key may use)", quote(name)),
                    "GET /v1/models lists them", "model"};
  };
  for (const std::string& name : filter.only.value_or(std::vector<std::string>())) {
    if (!contains(allowed, name)) return refuse(name);
  }
  for (const std::string& name : filter.adapters) {
    if (!contains(allowed, name)) return refuse(name);
  }
  for (const auto& [name, bias] : filter.bias) {
    if (!contains(allowed, name)) return refuse(name);
  }
  return std::nullopt;
}

std::variant<wire::ModuleFilter, ApiError> modules_of_headers(const Request& request) {
  wire::ModuleFilter filter;
  if (const auto* only = request.header("chimera-modules-only")) filter.only = split(*only, ',');
  if (const auto* exclude = request.header("chimera-modules-exclude")) {
    filter.exclude = split(*exclude, ',');
  }
  const std::string* bias = request.header("chimera-modules-bias");
  for (const std::string& item : split(bias == nullptr ? std::string_view() : *bias, ',')) {
    const size_t equals = item.find('=');
    double value = 0.0;
    const char* end = item.data() + item.size();
    const char* begin = equals == std::string::npos ? end : item.data() + equals + 1;
    const auto [stop, error] = std::from_chars(begin, end, value);
    if (error != std::errc() || stop != end || !(std::abs(value) <= kMaxBias)) {
      return bad_field(
          "chimera-modules-bias",
          fmt::format("{} (expected MODULE=NUMBER, at most {} from 0)", quote(item), kMaxBias));
    }
    filter.bias[item.substr(0, equals)] = value;
  }
  return filter;
}

}  // namespace chimera::gateway
