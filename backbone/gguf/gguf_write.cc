#include "backbone/gguf/gguf_write.h"

#include <bit>
#include <cstring>
#include <set>

#include "backbone/gguf/format.h"
#include "backbone/gguf/tensor_type.h"
#include "base/quote.h"
#include "base/utf8.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

static_assert(std::endian::native == std::endian::little);

uint64_t aligned(uint64_t at) {
  return (at + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

/// Metadata and tensor infos as they stand in the file, padded to where the data begins.
class HeaderWriter {
 public:
  std::string write(const std::vector<GgufEntry>& metadata,
                    const std::vector<TensorView>& tensors) {
    out_ = kGgufMagic;
    number(kGgufVersion);
    number(static_cast<uint64_t>(tensors.size()));
    number(static_cast<uint64_t>(metadata.size()));
    for (const auto& [key, value] : metadata) {
      text(key);
      std::visit([this](const auto& v) { entry(v); }, value);
    }
    uint64_t at = 0;
    for (const TensorView& t : tensors) {
      text(t.name);
      number(static_cast<uint32_t>(t.shape.size()));
      for (auto dim = t.shape.rbegin(); dim != t.shape.rend(); ++dim)  // innermost first
        number(static_cast<uint64_t>(*dim));
      number(*gguf_type(t.dtype));
      number(at);
      at = aligned(at + t.bytes.size());
    }
    out_.resize(aligned(out_.size()), '\0');
    return std::move(out_);
  }

 private:
  // The format's numbers of types of values.
  static constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8,
                            kArray = 9;

  template <class T>
  void number(T value) {
    const char* bytes = reinterpret_cast<const char*>(&value);
    out_.append(bytes, sizeof(value));
  }
  void text(std::string_view value) {
    number(static_cast<uint64_t>(value.size()));
    out_ += value;
  }
  void entry(bool value) {
    number(kBool);
    number(static_cast<uint8_t>(value));
  }
  void entry(uint32_t value) {
    number(kUint32);
    number(value);
  }
  void entry(float value) {
    number(kFloat32);
    number(value);
  }
  void entry(const std::string& value) {
    number(kString);
    text(value);
  }
  void list(uint32_t type, size_t count) {
    number(kArray);
    number(type);
    number(static_cast<uint64_t>(count));
  }
  void entry(const std::vector<int32_t>& values) {
    list(kInt32, values.size());
    for (const int32_t value : values) number(value);
  }
  void entry(const std::vector<float>& values) {
    list(kFloat32, values.size());
    for (const float value : values) number(value);
  }
  void entry(const std::vector<std::string>& values) {
    list(kString, values.size());
    for (const std::string& value : values) text(value);
  }

  std::string out_;
};

Status bad_tensor(const TensorView& t, const std::string& found, const std::string& expected) {
  return {Code::kInvalidArgument,
          "tensor " + quote(t.name) + ": " + found + " (expected " + expected + ")"};
}

Status check(const std::vector<GgufEntry>& metadata, const std::vector<TensorView>& tensors) {
  std::set<std::string_view> keys, names;
  for (const auto& [key, value] : metadata) {
    if (key.empty() || key.size() > kGgufMaxKeyBytes || find_invalid_utf8(key) ||
        !keys.insert(key).second)
      return {Code::kInvalidArgument, "metadata key " + quote(key.substr(0, 80)) +
                                          " is empty, too long, not UTF-8 or there twice"};
  }
  for (const TensorView& t : tensors) {
    if (t.name.empty() || t.name.size() > kGgufMaxNameBytes || find_invalid_utf8(t.name) ||
        !names.insert(t.name).second)
      return bad_tensor(t, "a name that is empty, too long, not UTF-8 or there twice",
                        "1 to " + std::to_string(kGgufMaxNameBytes) + " bytes, once");
    if (!gguf_type(t.dtype))
      return bad_tensor(t, std::string(dtype_name(t.dtype)), gguf_type_list());
    if (t.shape.empty() || t.shape.size() > kGgufMaxDimensions)
      return bad_tensor(t, std::to_string(t.shape.size()) + " dimensions", "1 to 4");
    const std::optional<int64_t> bytes = dense_bytes(t.dtype, t.shape);
    if (!bytes || *bytes <= 0 || static_cast<size_t>(*bytes) != t.bytes.size())
      return bad_tensor(
          t, std::to_string(t.bytes.size()) + " bytes",
          "whole blocks of " + std::string(dtype_name(t.dtype)) + " " + shape_string(t.shape));
  }
  return {};
}

}  // namespace

Status write_gguf(const std::string& path, const std::vector<GgufEntry>& metadata,
                  const std::vector<TensorView>& tensors, Env& env) {
  CHIMERA_RETURN_IF_ERROR(check(metadata, tensors).with_context(path));
  Result<DurableFile> file = DurableFile::create(env, path, 0644);
  if (!file.ok()) return file.status();
  const std::string header = HeaderWriter().write(metadata, tensors);
  CHIMERA_RETURN_IF_ERROR(file->append(std::as_bytes(std::span(header))));
  const std::string zeros(kGgufAlignment, '\0');
  for (const TensorView& t : tensors) {
    const Result<TensorView> made = loaded(t);  // one at a time
    if (!made.ok()) return made.status();
    CHIMERA_RETURN_IF_ERROR(file->append(made->bytes));
    const uint64_t size = made->bytes.size();
    const auto padding = static_cast<size_t>(aligned(size) - size);
    CHIMERA_RETURN_IF_ERROR(file->append(std::as_bytes(std::span(zeros)).first(padding)));
  }
  return file->commit();
}

}  // namespace chimera
