#include "bench/synth/shape.h"

#include <limits>

#include "base/io/env.h"
#include "base/json/writer.h"
#include "base/yaml/config_wording.h"
#include "base/yaml/field_value.h"

namespace chimera::bench {
namespace {

constexpr size_t kMaxShapeBytes = size_t{1} << 20;
constexpr std::string_view kFormat = "shape/1";

Json json_of(const FieldValue& value) {
  switch (value.kind()) {
    case FieldValue::Kind::kNull:
      return nullptr;
    case FieldValue::Kind::kList: {
      Json list = Json::array();
      for (size_t i = 0; i < value.size(); ++i) list.push_back(json_of(value[i]));
      return list;
    }
    case FieldValue::Kind::kMap: {
      Json map = Json::object();
      for (size_t i = 0; i < value.size(); ++i) {
        const FieldEntry entry = value.entry(i);
        map.append(std::string(entry.key), json_of(entry.value));
      }
      return map;
    }
    case FieldValue::Kind::kScalar:
      break;
  }
  if (const auto integer = value.integer()) return *integer;
  if (const auto number = value.number()) return *number;
  if (const auto boolean = value.boolean()) return *boolean;
  return std::string(value.scalar().value_or(""));
}

}  // namespace

Result<Shape> parse_shape(std::string_view yaml, const std::string& label) {
  YamlProblems problems(label);
  const Result<YamlNode> root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  const ConfigWording wording;
  FieldReader reader(field_value(*root), "", wording, problems);
  std::string format;
  reader.word(
      "chimera", kFormat, [](std::string_view text) { return text == kFormat; }, format,
      FieldReader::kRequired);
  Shape shape;
  if (const auto config = reader.map("config", FieldReader::kRequired))
    shape.config_json = write_json(json_of(*config), {.indent = 1}) + "\n";
  auto seed = static_cast<int64_t>(shape.seed);
  reader.integer({"seed", 0, std::numeric_limits<int64_t>::max()}, seed);
  shape.seed = static_cast<uint64_t>(seed);
  reader.finish();
  if (!problems.empty()) return problems.status();
  Result<ModelConfig> config = parse_model_config(shape.config_json, label + ": config");
  if (!config.ok()) return config.status();
  if (!config->quant_method.empty())
    return Status(
        Code::kUnimplemented,
        label + ": config.quantization_config: found " + config->quant_method + " (expected none)",
        "Leave it out, and choose what the weights are stored as by --type.");
  shape.config = std::move(*config);
  return shape;
}

Result<Shape> read_shape(const std::string& path) {
  const Result<std::string> text = read_file(Env::system(), path, kMaxShapeBytes);
  if (!text.ok()) return text.status();
  return parse_shape(*text, path);
}

}  // namespace chimera::bench
