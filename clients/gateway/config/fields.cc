#include "clients/gateway/config/fields.h"

#include "base/yaml/config_wording.h"

namespace chimera::gateway {
namespace {

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
