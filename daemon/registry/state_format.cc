#include "daemon/registry/state_format.h"

#include <fmt/format.h>

#include <boost/crc.hpp>
#include <charconv>
#include <nlohmann/json.hpp>

namespace chimera {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "chimera-state/1";

// CRC-32C (Castagnoli), as in iSCSI and ext4.
uint32_t crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

json to_json(const Composition& composition) {
  json modules = json::array();
  for (const CompositionModule& m : composition.modules) {
    modules.push_back({{"name", m.name},
                       {"version", m.version},
                       {"digest", m.digest},
                       {"path", m.path},
                       {"enabled", m.enabled},
                       // As the shortest decimal that gives the same float back: the digest of
                       // the composition must survive the round trip.
                       {"bias", fmt::format("{}", m.bias)}});
  }
  json out = {{"backbone", composition.backbone_fingerprint}, {"modules", std::move(modules)}};
  if (composition.top_k) out["top_k"] = *composition.top_k;
  return out;
}

float bias_from(const std::string& text) {
  float value = 0.0f;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw std::runtime_error("bias is no number");
  }
  return value;
}

Composition composition_from(const json& in) {
  Composition out;
  out.backbone_fingerprint = in.at("backbone").get<std::string>();
  if (in.contains("top_k")) out.top_k = in.at("top_k").get<int64_t>();
  for (const json& m : in.at("modules")) {
    CompositionModule module;
    module.name = m.at("name").get<std::string>();
    module.version = m.at("version").get<std::string>();
    module.digest = m.at("digest").get<std::string>();
    module.path = m.at("path").get<std::string>();
    module.enabled = m.at("enabled").get<bool>();
    module.bias = bias_from(m.at("bias").get<std::string>());
    out.modules.push_back(std::move(module));
  }
  return out;
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

std::string encode_state(const StateImage& image) {
  json history = json::array();
  for (const EpochRecord& record : image.history) {
    history.push_back({{"epoch", record.epoch},
                       {"time", record.time},
                       {"composition", to_json(record.composition)}});
  }
  const json body = {{"last_epoch", image.last_epoch}, {"history", std::move(history)}};
  // A path is bytes, not necessarily UTF-8: replaced rather than thrown at.
  const std::string text = body.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
  return fmt::format("{} {} {} {:08x}\n{}", kFormat, image.generation, text.size(), crc32c(text),
                     text);
}

Result<StateImage> decode_state(std::string_view bytes) {
  const size_t newline = bytes.find('\n');
  if (newline == std::string_view::npos) return corrupt("no header line");
  std::string_view line = bytes.substr(0, newline);
  const std::string_view text = bytes.substr(newline + 1);
  if (line.substr(0, kFormat.size() + 1) != std::string(kFormat) + " ") {
    return corrupt("another format than chimera-state/1");
  }
  line.remove_prefix(kFormat.size() + 1);
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
  try {
    const json body = json::parse(text);
    image.last_epoch = body.at("last_epoch").get<uint64_t>();
    for (const json& entry : body.at("history")) {
      EpochRecord record;
      record.epoch = entry.at("epoch").get<uint64_t>();
      record.time = entry.at("time").get<std::string>();
      record.composition = composition_from(entry.at("composition"));
      if (record.epoch > image.last_epoch ||
          (!image.history.empty() && record.epoch <= image.history.back().epoch)) {
        return corrupt("epochs out of order");
      }
      image.history.push_back(std::move(record));
    }
  } catch (const std::exception& e) {
    return corrupt(std::string("contents that are no state: ") + e.what());
  }
  return image;
}

}  // namespace chimera
