#include "backbone/checkpoint/index.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "backbone/checkpoint/safetensors_header.h"
#include "base/quote.h"

namespace chimera {
namespace {

using Json = nlohmann::json;

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() < 256 && name.ends_with(kSuffix) &&
         name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

/// Walks the events of the JSON parser, so that a duplicate key is seen and nothing is built for
/// the parts that are skipped ("metadata", whatever it holds).
class IndexReader : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return scalar("null"); }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return scalar("a number"); }
  bool number_unsigned(number_unsigned_t) override { return scalar("a number"); }
  bool number_float(number_float_t, const string_t&) override { return scalar("a number"); }
  bool binary(binary_t&) override { return scalar("binary data"); }

  bool string(string_t& value) override {
    if (!in_map_) return scalar("a string");
    if (!is_shard_name(value)) {
      return fail("tensor " + quote_bytes(tensor_) + " is in shard " + quote_bytes(value) +
                  ", expected a plain file name that ends with .safetensors");
    }
    if (!map_.try_emplace(tensor_, std::move(value)).second) {
      return fail("weight_map: duplicate key " + quote_bytes(tensor_));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (in_map_) return fail("weight_map: found an object, expected a file name");
    if (++depth_ == 2 && key_ == "weight_map") {
      if (std::exchange(seen_map_, true)) return fail("duplicate key \"weight_map\"");
      in_map_ = true;
    }
    return true;
  }
  bool end_object() override {
    in_map_ = false;
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (in_map_) {
      tensor_ = std::move(name);
    } else if (depth_ == 1) {
      key_ = std::move(name);
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0 || in_map_ || (depth_ == 1 && key_ == "weight_map")) {
      return scalar("an array");
    }
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& e) override {
    return fail(std::string("is not valid JSON: ") + e.what());
  }

  bool seen_map() const { return seen_map_; }
  const std::string& error() const { return error_; }
  ShardMap take() { return std::move(map_); }

 private:
  bool fail(std::string what) {
    error_ = std::move(what);
    return false;
  }
  bool scalar(const std::string& found) {
    if (depth_ == 0) return fail("holds " + found + ", expected an object");
    if (in_map_) return fail("weight_map: found " + found + ", expected a file name");
    if (depth_ == 1 && key_ == "weight_map") {
      return fail("weight_map is " + found + ", expected an object");
    }
    return true;
  }

  ShardMap map_;
  std::string key_;     // last key of the outermost object
  std::string tensor_;  // last key of weight_map
  int depth_ = 0;       // open objects and arrays
  bool in_map_ = false;
  bool seen_map_ = false;
  std::string error_;
};

}  // namespace

Result<ShardMap> parse_shard_index(std::string_view text, const std::string& label) {
  const auto corrupt = [&](const std::string& what) {
    return Status(Code::kDataCorrupt, label + ": " + what,
                  "Get the index again from where the checkpoint came from.");
  };
  IndexReader reader;
  try {
    if (!Json::sax_parse(text, &reader)) return corrupt(reader.error());
  } catch (const Json::exception& e) {  // a number that no double holds
    return corrupt(std::string("is not valid JSON: ") + e.what());
  }
  if (!reader.seen_map()) return corrupt("lacks \"weight_map\"");
  ShardMap map = reader.take();
  if (map.empty()) return corrupt("weight_map is empty");
  return map;
}

}  // namespace chimera
