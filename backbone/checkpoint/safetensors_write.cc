#include <algorithm>
#include <array>
#include <set>

#include "backbone/checkpoint/block_types_entry.h"
#include "backbone/checkpoint/packed_entry.h"
#include "backbone/checkpoint/safetensors.h"
#include "backbone/checkpoint/safetensors_header.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "base/utf8.h"
#include "compute/tensor/packed_tensor.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

constexpr size_t kPrefixBytes = 8;  // of the header, at the start of the file

/// The tensor as the file keeps it. A packed matrix is counted with the zeros behind it, which its
/// bytes do not have.
TensorView kept_form(const TensorView& t) {
  if (!is_packed_type(t.dtype)) return stored_form(t);
  TensorView bytes = t;
  bytes.dtype = DType::kU8;
  bytes.bytes = {t.bytes.data(), static_cast<size_t>(stored_packed_bytes(t))};
  bytes.shape = {static_cast<int64_t>(bytes.bytes.size())};
  return bytes;
}

Status check_packed_bytes(const std::vector<TensorView>& tensors, const std::string& path) {
  uint64_t at = 0;  // among the data, which begin at a multiple of the alignment
  for (const TensorView& t : tensors) {
    if (!is_packed_type(t.dtype)) {
      at += t.bytes.size();
      continue;
    }
    if (at % kPackedAlignment != 0) {
      return Status(Code::kInvalidArgument,
                    path + ": packed tensor " + quote(t.name) + " would begin at byte " +
                        std::to_string(at) + " of the data (expected a multiple of " +
                        std::to_string(kPackedAlignment) + "; packed tensors go first)");
    }
    at += stored_packed_bytes(t);
    const auto bytes = dense_bytes(t.dtype, t.shape);
    if (bytes && static_cast<size_t>(*bytes) == t.bytes.size()) continue;
    return Status(Code::kInvalidArgument,
                  path + ": tensor " + quote(t.name) + " has " + std::to_string(t.bytes.size()) +
                      " bytes, which do not make " + std::string(dtype_name(t.dtype)) + " " +
                      shape_string(t.shape));
  }
  return {};
}

Status check_tensor(const TensorView& t, const std::string& path) {
  int64_t bits = dtype_bits(t.dtype);
  bool good = t.shape.size() <= kMaxSafetensorsRank;
  for (const int64_t dim : t.shape) {
    good = good && dim >= 0 && !__builtin_mul_overflow(bits, dim, &bits);
  }
  if (good && static_cast<uint64_t>(bits) / 8 == t.bytes.size()) return Status();
  return Status(Code::kInvalidArgument,
                path + ": tensor " + quote(t.name) + " has " + std::to_string(t.bytes.size()) +
                    " bytes, which do not make " + std::string(dtype_name(t.dtype)) + " " +
                    shape_string(t.shape));
}

/// `"name":{…}` of one tensor whose data starts at `begin`.
std::string entry_json(const TensorView& t, uint64_t begin) {
  const Json entry = {{"dtype", dtype_name(t.dtype)},
                      {"shape", t.shape},
                      {"data_offsets", Json::array({begin, begin + t.bytes.size()})}};
  return json_string(t.name) + ":" + write_json(entry);
}

/// The JSON header, padded with spaces so that the data starts at a multiple of eight bytes, and of
/// what packed matrices begin at where there are some.
std::string header_json(const std::vector<TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + write_json(metadata);
  uint64_t at = 0;
  for (const TensorView& t : tensors) {
    if (text.size() > 1) text += ',';
    text += entry_json(t, at);
    at += t.bytes.size();
  }
  text += '}';
  const size_t alignment = metadata.contains(kPackedKey) ? kPackedAlignment : kPrefixBytes;
  text.append((alignment - (kPrefixBytes + text.size()) % alignment) % alignment, ' ');
  return text;
}

Status check_utf8(const std::string& path, const std::vector<TensorView>& tensors,
                  const std::map<std::string, std::string>& metadata) {
  const auto broken = [](std::string_view text) { return find_invalid_utf8(text).has_value(); };
  bool bad = std::any_of(tensors.begin(), tensors.end(),
                         [&](const TensorView& t) { return broken(t.name); });
  for (const auto& [key, value] : metadata) bad = bad || broken(key) || broken(value);
  if (!bad) return {};
  return Status(Code::kInvalidArgument,
                path + ": a tensor name or a metadata entry is not valid UTF-8");
}

}  // namespace

Result<std::string> safetensors_header(const std::string& path,
                                       const std::vector<TensorView>& tensors,
                                       const std::map<std::string, std::string>& metadata) {
  CHIMERA_RETURN_IF_ERROR(check_utf8(path, tensors, metadata));
  std::set<std::string_view> names{"__metadata__"};
  for (const TensorView& t : tensors) {
    CHIMERA_RETURN_IF_ERROR(check_tensor(t, path));
    if (!names.insert(t.name).second || t.name.find('\0') != std::string::npos) {
      return Status(Code::kInvalidArgument, path + ": tensor name " + quote(t.name) +
                                                " is used twice, reserved or holds a NUL byte");
    }
  }
  std::string text = header_json(tensors, metadata);
  if (text.size() <= SafetensorsFile::kMaxHeaderBytes) return text;
  return Status(Code::kInvalidArgument, path + ": the header would be " +
                                            std::to_string(text.size()) +
                                            " bytes long, expected at most " +
                                            std::to_string(SafetensorsFile::kMaxHeaderBytes));
}

Status write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                         const std::map<std::string, std::string>& metadata, Env& env) {
  std::vector<TensorView> stored;
  stored.reserve(tensors.size());
  CHIMERA_RETURN_IF_ERROR(check_packed_bytes(tensors, path));
  for (const TensorView& t : tensors) stored.push_back(kept_form(t));
  std::map<std::string, std::string> entries = metadata;
  entries.erase(kBlockTypesKey);
  std::string blocks = block_types_text(tensors);
  if (!blocks.empty()) entries[kBlockTypesKey] = std::move(blocks);
  entries.erase(kPackedKey);
  std::string packed = packed_text(tensors);
  if (!packed.empty()) entries[kPackedKey] = std::move(packed);
  auto header = safetensors_header(path, stored, entries);
  if (!header.ok()) return header.status();
  std::string prefix(kPrefixBytes, '\0');
  for (size_t i = 0; i < prefix.size(); ++i) {
    prefix[i] = static_cast<char>((header->size() >> (8 * i)) & 0xff);
  }
  auto file = DurableFile::create(env, path, 0644);
  if (!file.ok()) return file.status();
  for (const std::string* text : {&prefix, &header.value()}) {
    CHIMERA_RETURN_IF_ERROR(file->append(std::as_bytes(std::span(*text))));
  }
  constexpr std::array<std::byte, kPackedAlignment> kZeros{};
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Result<TensorView> made = loaded(tensors[i]);  // one at a time
    if (!made.ok()) return made.status();
    CHIMERA_RETURN_IF_ERROR(file->append(made->bytes));
    const size_t zeros = stored[i].bytes.size() - made->bytes.size();
    if (zeros > 0) CHIMERA_RETURN_IF_ERROR(file->append(std::span(kZeros).first(zeros)));
  }
  return file->commit();
}

}  // namespace chimera
