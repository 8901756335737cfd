#include "backbone/checkpoint/block_shape.h"

#include <nlohmann/json.hpp>

#include "base/quote.h"

namespace chimera {
namespace {

constexpr int64_t kMostBlock = int64_t{1} << 20;

}  // namespace

Result<BlockShape> weight_block_size(std::string_view config_json, std::string_view label) {
  const auto json = nlohmann::json::parse(config_json, nullptr, false);
  BlockShape block;
  if (!json.is_object()) return block;  // the configuration itself is judged elsewhere
  const auto text = json.find("text_config");
  for (const nlohmann::json* level : {&json, text != json.end() ? &*text : nullptr}) {
    if (level == nullptr || !level->is_object()) continue;
    const auto quantization = level->find("quantization_config");
    if (quantization == level->end() || !quantization->is_object()) continue;
    const auto size = quantization->find("weight_block_size");
    if (size == quantization->end() || size->is_null()) continue;
    const auto good = [](const nlohmann::json& n) {
      return n.is_number_integer() && n >= 1 && n <= kMostBlock;
    };
    if (!size->is_array() || size->size() != 2 || !good((*size)[0]) || !good((*size)[1])) {
      return Status(Code::kInvalidArgument,
                    std::string(label) + ": quantization_config.weight_block_size is " +
                        quote_bytes(size->dump()) +
                        ", expected two numbers from 1 to 1048576, such as [128, 128]");
    }
    block = {(*size)[0].get<int64_t>(), (*size)[1].get<int64_t>()};
  }
  return block;
}

}  // namespace chimera
