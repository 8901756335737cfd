// The shape of a model whose weights are made up: a YAML file that holds what config.json would
// say.
//
//   chimera: shape/1
//   config:                  # of any supported family, in its own keys
//     model_type: olmoe
//     hidden_size: 2048
//   seed: 1                  # optional
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backbone/families/model_config.h"
#include "base/status.h"

namespace chimera::bench {

struct Shape {
  std::string config_json;
  ModelConfig config;  // what it means
  uint64_t seed = 1;
};

/// Every problem of the file at once, each with its place, then those of the configuration as
/// parse_model_config tells them. unimplemented: weights that config.json says are quantised.
Result<Shape> parse_shape(std::string_view yaml, const std::string& label);
/// The same of a file, of at most 1 MiB.
Result<Shape> read_shape(const std::string& path);

}  // namespace chimera::bench
