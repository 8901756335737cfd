#include "backbone/gguf/header.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "backbone/gguf/cursor.h"
#include "backbone/gguf/format.h"
#include "backbone/gguf/tensor_type.h"
#include "backbone/gguf/value.h"
#include "base/quote.h"
#include "base/utf8.h"

namespace chimera {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMostAlignment = 1u << 20;
constexpr size_t kMostNameBytes = 4 * kGgufMaxNameBytes;
// An entry is at least a length, a key byte, a type and a value byte; an info a length, a name
// byte, a count, one dimension, a type and an offset.
constexpr uint64_t kLeastEntryBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

bool is_utf8(std::string_view text) { return !find_invalid_utf8(text).has_value(); }

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> image, const std::shared_ptr<const void>& owner,
               const std::string& label)
      : image_(image),
        owner_(owner),
        label_(label),
        cursor_(image.first(
            static_cast<size_t>(std::min<uint64_t>(image.size(), GgufFile::kMaxHeaderBytes)))) {}

  Result<GgufHeader> parse() {
    CHIMERA_RETURN_IF_ERROR(read_start());
    for (uint64_t i = 0; i < entries_; ++i) CHIMERA_RETURN_IF_ERROR(read_entry());
    CHIMERA_RETURN_IF_ERROR(read_alignment());
    for (uint64_t i = 0; i < infos_; ++i) CHIMERA_RETURN_IF_ERROR(read_info());
    CHIMERA_RETURN_IF_ERROR(place_data());
    return std::move(out_);
  }

 private:
  Status corrupt(const std::string& what) const {
    return {Code::kDataCorrupt, label_ + ": " + what, "Download or convert the file again."};
  }
  Status ended() const {
    if (image_.size() > GgufFile::kMaxHeaderBytes)
      return corrupt("metadata and tensor infos are longer than " +
                     std::to_string(GgufFile::kMaxHeaderBytes) + " bytes (expected at most that)");
    return corrupt("ends within its metadata or tensor infos, after " +
                   std::to_string(image_.size()) + " bytes");
  }

  Status read_start() {
    if (cursor_.number<uint32_t>() != 0x46554747u) return corrupt("does not begin with \"GGUF\"");
    const auto version = cursor_.number<uint32_t>();
    infos_ = cursor_.number<uint64_t>();
    entries_ = cursor_.number<uint64_t>();
    if (!cursor_.good()) return ended();
    if (version == __builtin_bswap32(kGgufVersion))
      return {Code::kUnimplemented, label_ + ": is a big-endian GGUF file (expected little-endian)",
              "Convert it for this machine."};
    if (version != kGgufVersion)
      return {Code::kUnimplemented,
              label_ + ": is GGUF version " + std::to_string(version) + " (expected 3)",
              "Convert it with a current converter."};
    if (entries_ > cursor_.left() / kLeastEntryBytes || infos_ > cursor_.left() / kLeastInfoBytes)
      return corrupt("says that it holds " + std::to_string(entries_) + " metadata entries and " +
                     std::to_string(infos_) + " tensors, more than its " +
                     std::to_string(image_.size()) + " bytes have room for");
    return {};
  }

  Status read_entry() {
    const std::string_view key = cursor_.text();
    const auto type = cursor_.number<uint32_t>();
    if (!cursor_.good()) return ended();
    if (key.empty() || key.size() > kGgufMaxKeyBytes || !is_utf8(key))
      return corrupt("metadata key " + quote(key.substr(0, 80)) +
                     " (expected 1 to 65535 bytes of UTF-8)");
    const auto [place, is_new] = out_.metadata.try_emplace(std::string(key));
    if (!is_new) return corrupt("metadata key " + quote(key) + " is there twice");
    const auto problem = read_gguf_value(cursor_, type, place->second);
    if (problem) return corrupt("metadata " + quote(key) + " " + *problem);
    return cursor_.good() ? Status() : ended();
  }

  Status read_alignment() {
    const auto found = out_.metadata.find("general.alignment");
    if (found == out_.metadata.end()) return {};
    const auto* stated = std::get_if<int64_t>(&found->second);
    const bool good = stated != nullptr && *stated >= 1 &&
                      *stated <= static_cast<int64_t>(kMostAlignment) &&
                      std::has_single_bit(static_cast<uint64_t>(*stated));
    if (!good)
      return corrupt("general.alignment is no power of two from 1 to " +
                     std::to_string(kMostAlignment));
    alignment_ = static_cast<uint64_t>(*stated);
    return {};
  }

  Status read_info() {
    TensorView t;
    const std::string_view name = cursor_.text();
    if (!cursor_.good()) return ended();
    if (name.empty() || name.size() > kMostNameBytes || !is_utf8(name))
      return corrupt("tensor name " + quote(name.substr(0, 80)) + " (expected 1 to " +
                     std::to_string(kMostNameBytes) + " bytes of UTF-8)");
    t.name = name;
    if (!names_.insert(t.name).second) return corrupt("tensor " + quote(name) + " is there twice");
    CHIMERA_RETURN_IF_ERROR(read_shape(t));
    const auto type = cursor_.number<uint32_t>();
    const auto offset = cursor_.number<uint64_t>();
    if (!cursor_.good()) return ended();
    const std::optional<DType> dtype = gguf_dtype(type);
    if (!dtype) return refuse_type(t.name, type);
    t.dtype = *dtype;
    const DTypeUnit unit = unit_of(t.dtype);
    if (t.shape.back() % unit.elements != 0)
      return corrupt("tensor " + quote(t.name) + " has rows of " + std::to_string(t.shape.back()) +
                     " elements (expected a multiple of " + std::to_string(unit.elements) +
                     ", the block of " + std::string(dtype_name(t.dtype)) + ")");
    out_.tensors.push_back(std::move(t));
    offsets_.push_back(offset);
    return {};
  }

  Status read_shape(TensorView& t) {
    const auto dimensions = cursor_.number<uint32_t>();
    if (!cursor_.good()) return ended();
    if (dimensions < 1 || dimensions > kGgufMaxDimensions)
      return corrupt("tensor " + quote(t.name) + " has " + std::to_string(dimensions) +
                     " dimensions (expected 1 to 4)");
    for (uint32_t d = 0; d < dimensions; ++d) {
      const auto size = cursor_.number<uint64_t>();
      if (!cursor_.good()) return ended();
      if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return corrupt("tensor " + quote(t.name) + " has a dimension of " + std::to_string(size) +
                       " (expected at least 1)");
      t.shape.push_back(static_cast<int64_t>(size));
    }
    std::reverse(t.shape.begin(), t.shape.end());
    return {};
  }

  Status refuse_type(const std::string& name, uint32_t type) const {
    return {Code::kUnimplemented,
            label_ + ": tensor " + quote(name) + " is stored as " + gguf_type_name(type) +
                " (expected one of " + gguf_type_list() + ")",
            "Use a file quantised to one of these, such as Q4_K_M or Q8_0."};
  }

  uint64_t padded(uint64_t n) const { return (n + alignment_ - 1) / alignment_ * alignment_; }

  /// Gives every tensor its bytes.
  Status place_data() {
    const uint64_t begin = padded(cursor_.position());
    if (out_.tensors.empty()) return {};
    if (begin > image_.size()) return ended();
    const std::span<const std::byte> data = image_.subspan(static_cast<size_t>(begin));
    uint64_t next = 0;
    for (size_t i = 0; i < out_.tensors.size(); ++i) {
      TensorView& t = out_.tensors[i];
      const std::optional<int64_t> bytes = dense_bytes(t.dtype, t.shape);
      if (!bytes)
        return corrupt("tensor " + quote(t.name) + " has the shape " + shape_string(t.shape) +
                       ", whose size does not fit 63 bits");
      if (offsets_[i] != next)
        return corrupt("tensor " + quote(t.name) + " begins at " + std::to_string(offsets_[i]) +
                       " of the data (expected " + std::to_string(next) +
                       ", after the one before it)");
      const auto size = static_cast<uint64_t>(*bytes);
      if (next > data.size() || size > data.size() - next)
        return corrupt("tensor " + quote(t.name) + " of " + std::to_string(size) +
                       " bytes reaches beyond the end of the file");
      t.bytes = data.subspan(static_cast<size_t>(next), static_cast<size_t>(size));
      t.owner = owner_;
      next = padded(next + size);  // both within the file, so no overflow
    }
    // Some writers pad the last tensor, some do not.
    if (data.size() > next)
      return corrupt("has " + std::to_string(data.size() - next) +
                     " bytes after its last tensor (expected none)");
    return {};
  }

  std::span<const std::byte> image_;
  std::shared_ptr<const void> owner_;
  const std::string& label_;
  GgufCursor cursor_;
  uint64_t entries_ = 0, infos_ = 0;
  uint64_t alignment_ = kGgufAlignment;
  std::set<std::string, std::less<>> names_;
  std::vector<uint64_t> offsets_;
  GgufHeader out_;
};

}  // namespace

Result<GgufHeader> parse_gguf_header(std::span<const std::byte> image,
                                     const std::shared_ptr<const void>& owner,
                                     const std::string& label) {
  return HeaderParser(image, owner, label).parse();
}

}  // namespace chimera
