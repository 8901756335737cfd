// A model in a GGUF file, or in several that were split, as a Hugging Face checkpoint: config.json,
// tokenizer files and named tensors. What is above knows no difference.
//
// Thread safety: values; free function.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backbone/files/tensor_file.h"
#include "base/io/env.h"
#include "base/status.h"

namespace chimera {

struct GgufModel {
  std::string config_json;
  /// "tokenizer.json" and "tokenizer_config.json" with their texts; none in a file without
  /// vocabulary.
  std::map<std::string, std::string, std::less<>> side_files;
  /// Why there is no tokenizer.json although there is a vocabulary: a kind that is not supported.
  Status tokenizer_problem;
  std::vector<std::shared_ptr<const TensorFile>> files;
};

/// `path` is the file, or the first of "NAME-00001-of-0000N.gguf". Errors as of GgufFile::open,
/// gguf_config and the reader of config.json; data_corrupt for files that do not belong together.
Result<GgufModel> open_gguf_model(const std::string& path, Residency residency, Env& env);

}  // namespace chimera
