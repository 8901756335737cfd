#include "check/safetensors_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "base/json/reader.h"
#include "chimera/expert.h"

namespace chimera::check {
namespace {

constexpr uint64_t kMaxHeader = 100u << 20;

uint32_t dtype_of(const std::string& name) {
  static const std::map<std::string, uint32_t> kNumbers = {
      {"F32", CHIMERA_DTYPE_F32}, {"BF16", CHIMERA_DTYPE_BF16}, {"F16", CHIMERA_DTYPE_F16},
      {"I8", CHIMERA_DTYPE_I8},   {"U8", CHIMERA_DTYPE_U8},     {"I32", CHIMERA_DTYPE_I32},
      {"I64", CHIMERA_DTYPE_I64}};
  const auto it = kNumbers.find(name);
  return it == kNumbers.end() ? 0 : it->second;
}

/// The tensor of one header entry; a text when it is impossible.
std::variant<FileTensor, std::string> read_entry(const std::string& name, const Json& entry,
                                                 uint64_t data_size) {
  FileTensor t;
  t.name = name;
  const Json& offsets = entry["data_offsets"];
  if (!entry["dtype"].is_string() || !entry["shape"].is_array() || !offsets.is_array() ||
      offsets.size() != 2) {
    return fmt::format("tensor {}: expected dtype, shape and data_offsets", name);
  }
  t.dtype = dtype_of(*entry["dtype"].string());
  for (const Json& d : entry["shape"]) {
    if (!d.natural()) return fmt::format("tensor {}: shape is no list of sizes", name);
    t.shape.push_back(*d.natural());
  }
  for (const Json& o : offsets) {
    if (!o.natural()) return fmt::format("tensor {}: offsets are no sizes", name);
  }
  t.begin = *offsets[0].natural();
  const uint64_t end = *offsets[1].natural();
  if (t.begin > end || end > data_size) {
    return fmt::format("tensor {}: offsets [{}, {}] in {} bytes of data", name, t.begin, end,
                       data_size);
  }
  t.size = end - t.begin;
  if (t.dtype != 0) {
    uint64_t want = dtype_size(t.dtype);
    for (const uint64_t d : t.shape) {
      if (__builtin_mul_overflow(want, d, &want)) want = UINT64_MAX;
    }
    if (want != t.size) {
      return fmt::format("tensor {}: found {} bytes (expected {})", name, t.size, want);
    }
  }
  return t;
}

double bf16_value(uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
}

double f16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(1024.0 + fraction, exponent - 25);
}

}  // namespace

uint64_t dtype_size(uint32_t dtype) {
  switch (dtype) {
    case CHIMERA_DTYPE_F32:
    case CHIMERA_DTYPE_I32:
      return 4;
    case CHIMERA_DTYPE_BF16:
    case CHIMERA_DTYPE_F16:
      return 2;
    case CHIMERA_DTYPE_I8:
    case CHIMERA_DTYPE_U8:
      return 1;
    case CHIMERA_DTYPE_I64:
      return 8;
    default:
      return 0;
  }
}

const FileTensor* TensorFile::find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const FileTensor& t, std::string_view n) { return t.name < n; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

std::variant<TensorFile, std::string> parse_tensor_file(std::string path, std::string bytes) {
  uint64_t length = 0;
  if (bytes.size() < 8) return path + ": found fewer than 8 bytes (expected a safetensors file)";
  std::memcpy(&length, bytes.data(), 8);
  if (length > kMaxHeader || length > bytes.size() - 8) {
    return fmt::format("{}: header of {} bytes in a file of {}", path, length, bytes.size());
  }
  const Result<Json> header =
      parse_json(std::string_view(bytes).substr(8, length), {.max_bytes = kMaxHeader});
  if (!header.ok()) return path + ": header: " + header.status().message();
  if (!header->is_object()) return path + ": header is no JSON object";
  TensorFile file;
  const uint64_t data = 8 + length;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    auto read = read_entry(name, entry, bytes.size() - data);
    if (auto* problem = std::get_if<std::string>(&read)) return path + ": " + *problem;
    auto& tensor = std::get<FileTensor>(read);
    tensor.begin += data;
    file.tensors.push_back(std::move(tensor));
  }
  std::sort(file.tensors.begin(), file.tensors.end(),
            [](const FileTensor& a, const FileTensor& b) { return a.name < b.name; });
  file.path = std::move(path);
  file.bytes = std::move(bytes);
  return file;
}

std::vector<double> tensor_row(const TensorFile& file, const FileTensor& tensor, uint64_t row) {
  const uint64_t cols = tensor.shape.at(1), size = dtype_size(tensor.dtype);
  const std::string_view data = file.data(tensor).substr(row * cols * size, cols * size);
  std::vector<double> out(cols);
  for (uint64_t i = 0; i < cols; ++i) {
    if (size == 4) {
      float value = 0;
      std::memcpy(&value, data.data() + i * 4, 4);
      out[i] = static_cast<double>(value);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, data.data() + i * 2, 2);
      out[i] = tensor.dtype == CHIMERA_DTYPE_BF16 ? bf16_value(bits) : f16_value(bits);
    }
  }
  return out;
}

}  // namespace chimera::check
