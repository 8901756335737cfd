#include "clients/gateway/config/fields.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "base/suggest.h"

namespace chimera::gateway {
namespace {

class ConfigWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {
        fmt::format("{}{}found {} (expected {})", path, path.empty() ? "" : ": ", found, expected)};
  }
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override {
    return {fmt::format("{}: missing (expected {})", path_of(path, key), expected)};
  }
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override {
    std::string name;
    append_visible(path_of(path, key), name);
    const std::string_view near = nearest(key, known);
    if (!near.empty()) return {fmt::format("{}: unknown key (did you mean {}?)", name, near)};
    return {fmt::format("{}: unknown key (expected {})", name, fmt::join(known, ", "))};
  }
  std::string map() const override { return "a map of keys"; }
};

const ConfigWording kWording;

}  // namespace

ConfigFields::ConfigFields(const FieldValue& map, std::string path, Problems& problems)
    : FieldReader(map, std::move(path), kWording, problems) {}

bool ConfigFields::line(std::string_view key, std::string_view expected, std::string& out,
                        Presence presence) {
  const auto value = find(key, presence, expected);
  if (!value) return false;
  const auto text = value->text();
  if (!text || text->empty()) {
    bad(key, *value, expected);
    return false;
  }
  out = *text;
  return true;
}

void ConfigFields::lines(std::string_view key, std::string_view expected,
                         std::vector<std::string>& out) {
  const auto items = list(key, expected);
  for (size_t i = 0; items && i < items->size(); ++i) {
    const auto text = (*items)[i].text();
    if (text && !text->empty()) {
      out.emplace_back(*text);
    } else {
      bad(key, (*items)[i], expected);
    }
  }
}

}  // namespace chimera::gateway
