// Fuzz target of quantised checkpoints: a configuration, a NUL byte and the image of a safetensors
// file. Whatever is accepted is made in full, within memory that the file itself pays for.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/checkpoint/quantized/quantized.h"
#include "backbone/checkpoint/safetensors.h"
#include "compute/tensor/tensor_source.h"

namespace {

// Two bits become 32, and there are scales beside them.
constexpr size_t kMostGrowth = 32;

void require(bool promise) {
  if (!promise) std::abort();
}

void check_tensor(const chimera::TensorView& t, size_t image) {
  const auto bytes = chimera::dense_bytes(t.dtype, t.shape);
  require(bytes && static_cast<size_t>(*bytes) == t.bytes.size());
  require(t.bytes.size() <= kMostGrowth * image);
  const auto made = chimera::loaded(t);
  if (!made.ok()) {
    require(!made.status().message().empty());
    return;
  }
  require(made->source == nullptr && made->bytes.size() == t.bytes.size());
  unsigned sum = 0;
  for (const std::byte b : made->bytes) sum += std::to_integer<unsigned>(b);
  volatile unsigned sink = sum;
  (void)sink;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint8_t* end = std::find(data, data + size, 0);
  if (end == data + size) return 0;
  const std::string_view config(reinterpret_cast<const char*>(data),
                                static_cast<size_t>(end - data));
  const auto image = std::as_bytes(std::span(end + 1, data + size));
  auto file = chimera::SafetensorsFile::parse(image, "input");
  if (!file.ok()) return 0;
  const auto native =
      chimera::read_quantized(config, "config.json", "input",
                              {std::make_shared<const chimera::SafetensorsFile>(std::move(*file))});
  if (!native.ok()) {
    const std::string message(native.status().message());  // status() is a copy
    require(message.starts_with("config.json: ") || message.starts_with("input: "));
    return 0;
  }
  if (!*native) return 0;
  size_t total = 0;
  for (const auto& part : (*native)->files) {
    for (const chimera::TensorView& t : part->tensors()) {
      check_tensor(t, image.size());
      total += t.bytes.size();
    }
  }
  require(total <= kMostGrowth * image.size());
  return 0;
}
