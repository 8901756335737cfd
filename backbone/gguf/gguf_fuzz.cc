// Fuzz target of the GGUF reader and of what makes a checkpoint of it. Whatever is accepted must
// keep the promises that the rest of the engine relies on; whatever is refused must say which file.
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "backbone/families/model_config.h"
#include "backbone/gguf/config.h"
#include "backbone/gguf/gguf_file.h"
#include "backbone/gguf/names.h"
#include "backbone/gguf/vocabulary.h"
#include "compute/tensor/convert.h"

namespace {

using chimera::GgufFile;
using chimera::TensorView;

void require(bool promise) {
  if (!promise) std::abort();
}

/// Reads every byte of a tensor through the conversions, so that AddressSanitizer checks the range.
void convert(const TensorView& t) {
  if (!chimera::check_number_dtype(t).ok()) return;
  if (t.shape.size() == 2)
    (void)chimera::to_matrix(t, t.shape[0], t.shape[1], chimera::Precision::kF32);
  if (t.shape.size() == 1) (void)chimera::to_f32(t, -1);
}

void check_tensors(const GgufFile& file, std::span<const std::byte> image) {
  const std::byte* next = nullptr;
  for (const TensorView& t : file.tensors()) {
    require(!t.shape.empty() && t.shape.size() <= 4);
    const std::optional<int64_t> bytes = chimera::dense_bytes(t.dtype, t.shape);
    require(bytes && *bytes > 0 && static_cast<size_t>(*bytes) == t.bytes.size());
    require(t.bytes.data() >= image.data() + 24);
    require(t.bytes.data() + t.bytes.size() <= image.data() + image.size());
    require(next == nullptr || t.bytes.data() >= next);  // no overlap
    next = t.bytes.data() + t.bytes.size();
    require(file.find(t.name) == &t);  // so no name is there twice
    convert(t);
  }
}

/// All that open_gguf_model does with a file.
void translate(const GgufFile& file) {
  const chimera::GgufFind find = [&](std::string_view name) { return file.find(name); };
  std::map<std::string, std::string, std::less<>> side_files;
  (void)chimera::gguf_vocabulary(file.metadata(), "input", side_files);
  const auto config = chimera::gguf_config(file.metadata(), find, "input");
  if (!config.ok()) return require(config.status().message().starts_with("input: "));
  const auto parsed = chimera::parse_model_config(config->config_json, "input");
  if (!parsed.ok()) return;
  const auto named =
      chimera::huggingface_tensors(file.tensors(), *parsed, config->permuted_qk, "input");
  if (!named.ok()) return;
  for (const TensorView& t : *named) convert(t);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto image = std::as_bytes(std::span(data, size));
  const auto file = GgufFile::parse(image, "input");
  if (file.ok()) {
    check_tensors(*file, image);
    translate(*file);
  } else {
    require(file.status().message().starts_with("input: "));
  }
  return 0;
}
