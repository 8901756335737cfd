#include "backbone/checkpoint/block_shape.h"

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr int64_t kMostBlock = int64_t{1} << 20;

}  // namespace

Result<BlockShape> weight_block_size(std::string_view config_json, std::string_view label) {
  const Result<Json> parsed = parse_json(config_json, {.duplicates = DuplicateKeys::kLastCounts});
  BlockShape block;
  if (!parsed.ok()) return block;  // the configuration itself is judged elsewhere
  const Json& json = *parsed;
  for (const Json* level : {&json, &json["text_config"]}) {
    const Json& size = (*level)["quantization_config"]["weight_block_size"];
    if (size.is_null()) continue;
    const std::optional<int64_t> rows = size[0].integer(), cols = size[1].integer();
    const auto good = [](const std::optional<int64_t>& n) {
      return n && *n >= 1 && *n <= kMostBlock;
    };
    if (size.size() != 2 || !good(rows) || !good(cols)) {
      return Status(Code::kInvalidArgument,
                    std::string(label) + ": quantization_config.weight_block_size is " +
                        quote(write_json(size)) +
                        ", expected two numbers from 1 to 1048576, such as [128, 128]");
    }
    block = {*rows, *cols};
  }
  return block;
}

}  // namespace chimera
