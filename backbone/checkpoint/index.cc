#include "backbone/checkpoint/index.h"

#include "base/json/reader.h"
#include "base/quote.h"

namespace chimera {
namespace {

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() < 256 && name.ends_with(kSuffix) &&
         name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

/// "null", "a string", "an object": for messages.
std::string a_kind(const Json& value) {
  const std::string kind(value.kind_name());
  if (value.is_null()) return kind;
  return (value.is_array() || value.is_object() ? "an " : "a ") + kind;
}

}  // namespace

Result<ShardMap> parse_shard_index(std::string_view text, const std::string& label) {
  const auto corrupt = [&](const std::string& what) {
    return Status(Code::kDataCorrupt, label + ": " + what,
                  "Get the index again from where the checkpoint came from.");
  };
  const Result<Json> index = parse_json(text);
  if (!index.ok()) return corrupt(index.status().message());
  if (!index->is_object()) {
    return corrupt("holds " + a_kind(*index) + ", expected an object");
  }
  const Json* weights = index->find("weight_map");
  if (weights == nullptr) return corrupt("lacks \"weight_map\"");
  if (!weights->is_object()) {
    return corrupt("weight_map is " + a_kind(*weights) + ", expected an object");
  }
  if (weights->empty()) return corrupt("weight_map is empty");
  ShardMap map;
  for (const auto& [tensor, shard] : weights->items()) {
    const std::string* name = shard.string();
    if (name == nullptr) {
      return corrupt("weight_map: found " + a_kind(shard) + ", expected a file name");
    }
    if (!is_shard_name(*name)) {
      return corrupt("tensor " + quote(tensor) + " is in shard " + quote(*name) +
                     ", expected a plain file name that ends with .safetensors");
    }
    map.emplace(tensor, *name);
  }
  return map;
}

}  // namespace chimera
