#include "daemon/registry/state/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/crc.hpp>
#include <charconv>

#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

constexpr std::string_view kFormat = "chimera-state/2";
constexpr std::string_view kFormatWithoutEdits = "chimera-state/1";

// CRC-32C (Castagnoli), as in iSCSI and ext4.
uint32_t crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

/// What a composition may change of a module. Numbers as the shortest decimals that give the same
/// back: the digest of the composition must survive the round trip.
void put_options(const CompositionModule& module, Json& out) {
  out["enabled"] = module.enabled;
  out["bias"] = fmt::format("{}", module.bias);
  for (const auto& [parent, value] : module.lambda) {
    out["lambda"][parent] = fmt::format("{}", value);
  }
  if (module.precision) out["precision"] = kPrecisionNames.name(*module.precision);
  if (module.weight) out["weight"] = fmt::format("{}", *module.weight);
}

Json to_json(const Composition& composition) {
  Json modules = Json::array();
  for (const CompositionModule& m : composition.modules) {
    Json module = {
        {"name", m.name}, {"version", m.version}, {"digest", m.digest}, {"path", m.path}};
    put_options(m, module);
    modules.push_back(std::move(module));
  }
  Json out = {{"backbone", composition.backbone_fingerprint}, {"modules", std::move(modules)}};
  if (composition.top_k) out["top_k"] = *composition.top_k;
  return out;
}

/// Whether only options of the modules differ.
bool same_modules(const Composition& a, const Composition& b) {
  return a.backbone_fingerprint == b.backbone_fingerprint && a.top_k == b.top_k &&
         std::equal(a.modules.begin(), a.modules.end(), b.modules.begin(), b.modules.end(),
                    [](const CompositionModule& x, const CompositionModule& y) {
                      return x.digest == y.digest && x.name == y.name && x.version == y.version &&
                             x.path == y.path;
                    });
}

/// What makes `to` of `from`. REQUIRES: same_modules.
Json edits_between(const Composition& from, const Composition& to) {
  Json edits = Json::array();
  for (size_t i = 0; i < to.modules.size(); ++i) {
    const CompositionModule& module = to.modules[i];
    if (module == from.modules[i]) continue;
    Json edit = {{"at", uint64_t{i}}};
    put_options(module, edit);
    edits.push_back(std::move(edit));
  }
  return edits;
}

// Each takes the member `key` when it is of the kind of `out`.
bool take(const Json& object, const char* key, std::string& out) {
  const std::string* text = object[key].string();
  if (text != nullptr) out = *text;
  return text != nullptr;
}
bool take(const Json& object, const char* key, bool& out) {
  const std::optional<bool> flag = object[key].boolean();
  out = flag.value_or(false);
  return flag.has_value();
}
bool take(const Json& object, const char* key, uint64_t& out) {
  const std::optional<uint64_t> number = object[key].natural();
  out = number.value_or(0);
  return number.has_value();
}
/// All of `text` as a number.
template <class T>
bool number_of(const std::string& text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}
bool take(const Json& object, const char* key, float& out) {
  std::string text;
  return take(object, key, text) && number_of(text, out);
}

bool take_lambda(const Json& object, std::map<std::string, double>& out) {
  if (object.is_null()) return true;
  if (!object.is_object()) return false;
  for (const auto& [parent, value] : object.items()) {
    if (value.string() == nullptr || !number_of(*value.string(), out[parent])) return false;
  }
  return true;
}

bool take_names(const Json& list, std::vector<std::string>& out) {
  for (const Json& name : list) {
    if (!name.is_string()) return false;
    out.push_back(*name.string());
  }
  return list.is_null() || list.is_array();
}

bool take_digests(const Json& object, std::map<std::string, std::string>& out) {
  if (object.is_null()) return true;
  if (!object.is_object()) return false;
  for (const auto& [name, digest] : object.items()) {
    if (digest.string() == nullptr) return false;
    out.emplace(name, *digest.string());
  }
  return true;
}

bool take_precision(const Json& object, std::optional<Precision>& out) {
  if (object.is_null()) return true;
  out = object.string() == nullptr ? std::nullopt : kPrecisionNames.find(*object.string());
  return out.has_value();
}

bool take_weight(const Json& object, std::optional<double>& out) {
  if (object.is_null()) return true;
  return object.string() != nullptr && number_of(*object.string(), out.emplace());
}

bool take_options(const Json& object, CompositionModule& out) {
  out.lambda.clear();
  out.precision.reset();
  out.weight.reset();
  return take(object, "enabled", out.enabled) && take(object, "bias", out.bias) &&
         take_lambda(object["lambda"], out.lambda) &&
         take_precision(object["precision"], out.precision) &&
         take_weight(object["weight"], out.weight);
}

bool take_composition(const Json& in, Composition& out) {
  if (!take(in, "backbone", out.backbone_fingerprint)) return false;
  if (const Json* top_k = in.find("top_k")) {
    out.top_k = top_k->integer();
    if (!out.top_k) return false;
  }
  const Json& modules = in["modules"];
  for (const Json& m : modules) {
    CompositionModule& module = out.modules.emplace_back();
    if (!take(m, "name", module.name) || !take(m, "version", module.version) ||
        !take(m, "digest", module.digest) || !take(m, "path", module.path) ||
        !take_options(m, module)) {
      return false;
    }
  }
  return modules.is_array();
}

bool take_edits(const Json& edits, Composition& out) {
  for (const Json& edit : edits) {
    uint64_t at = 0;
    if (!take(edit, "at", at) || at >= out.modules.size()) return false;
    if (!take_options(edit, out.modules[at])) return false;
  }
  return edits.is_array();
}

/// `before`: the record before it; null for the first.
bool take_record(const Json& in, const EpochRecord* before, EpochRecord& out) {
  if (!take(in, "epoch", out.epoch) || !take(in, "time", out.time)) return false;
  const Json* edits = in.find("edits");
  if (edits == nullptr) {
    if (!take_composition(in["composition"], out.composition)) return false;
  } else {
    if (before == nullptr) return false;
    out.composition = before->composition;
    if (!take_edits(*edits, out.composition)) return false;
  }
  if (in.contains("origin") && !take(in, "origin", out.origin)) return false;
  return take_names(in["revoked"], out.revoked) && take_digests(in["set_aside"], out.set_aside);
}

/// `before` as of take_record().
std::string record_text(const EpochRecord& record, const EpochRecord* before) {
  Json entry = {{"epoch", record.epoch}, {"time", record.time}};
  if (before != nullptr && same_modules(before->composition, record.composition)) {
    entry["edits"] = edits_between(before->composition, record.composition);
  } else {
    entry["composition"] = to_json(record.composition);
  }
  if (record.origin != 0) entry["origin"] = record.origin;
  if (!record.revoked.empty()) entry["revoked"] = record.revoked;
  for (const auto& [name, digest] : record.set_aside) entry["set_aside"][name] = digest;
  // A path is bytes, not necessarily UTF-8: replaced rather than thrown at.
  return write_json(entry, {.indent = 1});
}

Status corrupt(std::string_view why) {
  return Status(Code::kDataCorrupt, fmt::format("found {} (expected a whole generation)", why));
}

// One space-delimited field of the header line.
template <class Int>
bool take_number(std::string_view* line, int base, Int* out) {
  const size_t space = std::min(line->find(' '), line->size());
  const std::string_view field = line->substr(0, space);
  line->remove_prefix(std::min(space + 1, line->size()));
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), *out, base);
  return error == std::errc() && !field.empty() && end == field.data() + field.size();
}

}  // namespace

std::string StateEncoder::encode(const StateImage& image) {
  std::unordered_map<const EpochRecord*, Known> known;
  std::string text = fmt::format("{{\"last_epoch\": {},\n\"history\": [", image.last_epoch);
  Record before;
  for (const Record& record : image.history) {
    const auto found = known_.find(record.get());
    Known entry = found != known_.end() && found->second.before == before
                      ? std::move(found->second)
                      : Known{record, before, record_text(*record, before.get())};
    text += before == nullptr ? "\n" : ",\n";
    text += entry.text;
    known.emplace(record.get(), std::move(entry));
    before = record;
  }
  text += "\n]}\n";
  known_ = std::move(known);
  return fmt::format("{} {} {} {:08x}\n{}", kFormat, image.generation, text.size(), crc32c(text),
                     text);
}

Result<StateImage> decode_state(std::string_view bytes) {
  const size_t newline = bytes.find('\n');
  if (newline == std::string_view::npos) return corrupt("no header line");
  std::string_view line = bytes.substr(0, newline);
  const std::string_view text = bytes.substr(newline + 1);
  const std::string_view format = line.substr(0, std::min(line.find(' '), line.size()));
  if (format != kFormat && format != kFormatWithoutEdits)
    return corrupt("another format than chimera-state/1 and /2");
  line.remove_prefix(std::min(format.size() + 1, line.size()));
  StateImage image;
  size_t length = 0;
  uint32_t crc = 0;
  if (!take_number(&line, 10, &image.generation) || !take_number(&line, 10, &length) ||
      !take_number(&line, 16, &crc) || !line.empty()) {
    return corrupt("a damaged header line");
  }
  if (text.size() != length) {
    return corrupt(fmt::format("{} bytes where the header says {}", text.size(), length));
  }
  if (crc32c(text) != crc) return corrupt("a checksum that does not fit the contents");
  // Its length and checksum are right, so it is what was written: no limit but the file's.
  const JsonLimits limits{.max_bytes = text.size(), .max_values = text.size()};
  const Result<Json> body = parse_json(text, limits);
  if (!body.ok()) return corrupt("contents that are no state: " + body.status().message());
  const Json& history = (*body)["history"];
  bool whole = take(*body, "last_epoch", image.last_epoch) && history.is_array();
  for (const Json& entry : history) {
    auto record = std::make_shared<EpochRecord>();
    const EpochRecord* before = image.history.empty() ? nullptr : image.history.back().get();
    whole = whole && take_record(entry, before, *record);
    if (!whole) break;
    if (record->epoch > image.last_epoch || (before != nullptr && record->epoch <= before->epoch))
      return corrupt("epochs out of order");
    image.history.push_back(std::move(record));
  }
  if (!whole) return corrupt("contents that are no state: a field is missing or of another type");
  return image;
}

}  // namespace chimera
