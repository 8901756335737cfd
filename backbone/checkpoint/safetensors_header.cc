#include "backbone/checkpoint/safetensors_header.h"
#include "base/quote.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

namespace chimera {
namespace {

// Real files hold a handful. A map node costs ten times the shortest entry, so without a limit
// metadata alone would break the memory bound.
constexpr size_t kMaxMetadataEntries = 4096;
// Length of `"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}`: a header of n bytes cannot
// describe more than n / kMinEntryBytes tensors.
constexpr size_t kMinEntryBytes = 48;

constexpr std::array kDTypes = {DType::kF32, DType::kF16,  DType::kBF16,   DType::kF64,
                                DType::kI64, DType::kI32,  DType::kI16,    DType::kI8,
                                DType::kU8,  DType::kBool, DType::kF8E4M3, DType::kF8E5M2,
                                DType::kU64, DType::kU32,  DType::kU16};
// Dtypes of the format that no part of Chimera computes with.
constexpr std::array<std::string_view, 7> kUnsupportedDTypes = {
    "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};
constexpr const char* kBrokenHint =
    "Get the file again or write it with a current safetensors library.";

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType dtype : kDTypes) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

/// Bytes of a dense tensor; nothing when shape x size does not fit 63 bits. Dimensions of zero
/// are left out of the check, so that no partial product of an accepted shape can overflow.
std::optional<uint64_t> tensor_bytes(const std::vector<int64_t>& shape, DType dtype) {
  int64_t bits = dtype_bits(dtype);
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bits, dim, &bits)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : static_cast<uint64_t>(bits) / 8;
}

class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::span<const std::byte> data,
               const std::shared_ptr<const void>& owner, const std::string& label)
      : text_(text), data_(data), owner_(owner), label_(label) {}

  Result<SafetensorsHeader> run() {
    out_.tensors.reserve(std::min(count_entries(), text_.size() / kMinEntryBytes));
    if (!parse_header()) return std::move(error_);
    sort_by_data();
    // Names first: a tensor that is there twice would else be reported as an overlap.
    if (!index_names() || !check_layout()) return std::move(error_);
    return std::move(out_);
  }

 private:
  // --- errors -----------------------------------------------------------------------------

  bool fail(const std::string& what, Code code = Code::kDataCorrupt,
            const char* hint = kBrokenHint) {
    error_ = Status(code, label_ + ": " + what, hint);
    return false;
  }
  bool fail_here(std::string_view expected) {
    std::string found = "the end of the header";
    if (at_ < text_.size()) found = quote(text_.substr(at_, 1));
    return fail(where() + "found " + found + " at header byte " + std::to_string(at_) +
                ", expected " + std::string(expected));
  }
  std::string where() const {
    if (tensor_ != nullptr) return "tensor " + quote(*tensor_) + ": ";
    return in_metadata_ ? "__metadata__: " : "";
  }

  // --- lexical level ----------------------------------------------------------------------

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  /// Consumes `c` when it is next.
  bool next_is(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool expect(char c, std::string_view expected) { return next_is(c) || fail_here(expected); }

  bool parse_string(std::string& out) {
    out.clear();
    if (!expect('"', "a string")) return false;
    size_t start = at_;
    while (at_ < text_.size()) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        out.append(text_, start, at_ - start);
        ++at_;
        return true;
      }
      if (c < 0x20) return fail_here("no raw control byte inside a string");
      if (c == '\\') {
        out.append(text_, start, at_ - start);
        if (!parse_escape(out)) return false;
        start = at_;
      } else if (c < 0x80) {
        ++at_;
      } else if (!skip_utf8()) {
        return false;
      }
    }
    return fail_here("a closing quote");
  }

  bool skip_utf8() {
    utf8proc_int32_t code_point = 0;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text_.data()) + at_;
    const auto left = static_cast<utf8proc_ssize_t>(std::min<size_t>(text_.size() - at_, 4));
    const utf8proc_ssize_t length = utf8proc_iterate(bytes, left, &code_point);
    if (length <= 0) return fail_here("valid UTF-8");
    at_ += static_cast<size_t>(length);
    return true;
  }

  bool parse_escape(std::string& out) {
    static constexpr std::string_view kFrom = "\"\\/bfnrt";
    static constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    ++at_;  // the backslash
    if (at_ >= text_.size()) return fail_here("an escape sequence");
    const size_t simple = kFrom.find(text_[at_]);
    if (simple != std::string_view::npos) {
      out += kTo[simple];
      ++at_;
      return true;
    }
    return parse_unicode_escape(out);
  }

  bool parse_unicode_escape(std::string& out) {
    uint32_t code = 0;
    if (!parse_hex4(code)) return false;
    if (code >= 0xd800 && code < 0xdc00) {  // first half of a surrogate pair
      uint32_t low = 0;
      if (at_ >= text_.size() || text_[at_] != '\\') return fail_here("a low surrogate");
      ++at_;
      if (!parse_hex4(low)) return false;
      if (low < 0xdc00 || low > 0xdfff) return fail_here("a low surrogate");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
      return fail_here("no lone surrogate");
    }
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(n));
    return true;
  }

  /// `uXXXX`, the cursor on the u.
  bool parse_hex4(uint32_t& code) {
    if (at_ >= text_.size() || text_[at_] != 'u') return fail_here("an escape sequence");
    ++at_;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ >= text_.size()) return fail_here("four hex digits");
      const char c = text_[at_];
      uint32_t digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<uint32_t>(c - '0');
      } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
        digit = static_cast<uint32_t>((c | 0x20) - 'a') + 10;
      } else {
        return fail_here("four hex digits");
      }
      code = code << 4 | digit;
    }
    return true;
  }

  /// A JSON integer in [0, 2^63): digits only, so signs, fractions and exponents are refused.
  bool parse_integer(int64_t& value) {
    skip_space();
    const size_t start = at_;
    value = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      const int64_t digit = text_[at_] - '0';
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, digit, &value)) {
        return fail(where() + "a number does not fit 63 bits");
      }
      ++at_;
    }
    if (at_ == start) return fail_here("a non-negative integer");
    if (text_[start] == '0' && at_ - start > 1) {
      return fail(where() + "a number starts with a zero at header byte " + std::to_string(start));
    }
    if (at_ < text_.size() && (text_[at_] == '.' || (text_[at_] | 0x20) == 'e')) {
      return fail_here("an integer without fraction or exponent");
    }
    return true;
  }

  // --- structure --------------------------------------------------------------------------

  bool parse_header() {
    if (!expect('{', "an object, i.e. '{'")) return false;
    if (!next_is('}')) {
      do {
        if (!parse_member()) return false;
      } while (next_is(','));
      if (!expect('}', "',' or '}'")) return false;
    }
    skip_space();
    return at_ == text_.size() || fail_here("nothing but whitespace after the object");
  }

  bool parse_member() {
    if (!parse_string(key_)) return false;
    if (key_.find('\0') != std::string::npos) {
      return fail("tensor name " + quote(key_) + " holds a NUL byte");
    }
    if (!expect(':', "':' after a name")) return false;
    if (key_ != "__metadata__") return parse_tensor();
    in_metadata_ = true;
    const bool good = parse_metadata();
    in_metadata_ = false;
    return good;
  }

  bool parse_metadata() {
    if (std::exchange(seen_metadata_, true)) return fail("duplicate key \"__metadata__\"");
    if (!expect('{', "an object of strings")) return false;
    if (next_is('}')) return true;
    do {
      std::string key, value;
      if (!parse_string(key) || !expect(':', "':'")) return false;
      skip_space();
      if (at_ >= text_.size() || text_[at_] != '"') return fail_here("a string value");
      if (!parse_string(value)) return false;
      if (out_.metadata.size() == kMaxMetadataEntries) {
        return fail(where() + "more than " + std::to_string(kMaxMetadataEntries) + " entries");
      }
      if (!out_.metadata.try_emplace(key, std::move(value)).second) {
        return fail(where() + "duplicate key " + quote(key));
      }
    } while (next_is(','));
    return expect('}', "',' or '}'");
  }

  /// The entry whose name is in key_.
  bool parse_tensor() {
    TensorView tensor;
    tensor.name = key_;
    tensor_ = &tensor.name;
    std::array<int64_t, 2> offsets{};
    const bool good = parse_entry(tensor, offsets) && place(tensor, offsets[0], offsets[1]);
    tensor_ = nullptr;
    if (good) out_.tensors.push_back(std::move(tensor));
    return good;
  }

  bool parse_entry(TensorView& tensor, std::array<int64_t, 2>& offsets) {
    enum : unsigned { kDType = 1, kShape = 2, kOffsets = 4 };
    unsigned seen = 0;
    if (!expect('{', "an object")) return false;
    if (!next_is('}')) {
      do {
        if (!parse_string(key_) || !expect(':', "':'")) return false;
        const unsigned field = key_ == "dtype"          ? kDType
                               : key_ == "shape"        ? kShape
                               : key_ == "data_offsets" ? kOffsets
                                                        : 0u;
        if (field == 0) {
          return fail(where() + "unknown key " + quote(key_) +
                      ", expected dtype, shape and data_offsets");
        }
        if ((seen & field) != 0) return fail(where() + "duplicate key " + quote(key_));
        seen |= field;
        const bool good = field == kDType   ? parse_dtype(tensor.dtype)
                          : field == kShape ? parse_shape(tensor.shape)
                                            : parse_offsets(offsets);
        if (!good) return false;
      } while (next_is(','));
      if (!expect('}', "',' or '}'")) return false;
    }
    if (seen != (kDType | kShape | kOffsets)) {
      return fail(where() + "lacks " +
                  ((seen & kDType) == 0   ? "dtype"
                   : (seen & kShape) == 0 ? "shape"
                                          : "data_offsets"));
    }
    return true;
  }

  bool parse_dtype(DType& dtype) {
    if (!parse_string(key_)) return false;
    const auto known = dtype_of(key_);
    if (known) {
      dtype = *known;
      return true;
    }
    const bool unsupported = std::find(kUnsupportedDTypes.begin(), kUnsupportedDTypes.end(),
                                       key_) != kUnsupportedDTypes.end();
    std::string names;
    for (const DType each : kDTypes) names += " " + std::string(dtype_name(each));
    if (unsupported) {
      return fail(where() + "dtype " + key_ + " is not supported, expected one of" + names,
                  Code::kUnimplemented, "Use the checkpoint in one of these, such as BF16.");
    }
    return fail(where() + "dtype " + quote(key_) + " is unknown, expected one of" + names);
  }

  bool parse_shape(std::vector<int64_t>& shape) {
    std::array<int64_t, kMaxSafetensorsRank> dims;
    size_t rank = 0;
    if (!expect('[', "an array of dimensions")) return false;
    if (!next_is(']')) {
      do {
        if (rank == kMaxSafetensorsRank) {
          return fail(where() + "more than " + std::to_string(kMaxSafetensorsRank) + " dimensions");
        }
        if (!parse_integer(dims[rank++])) return false;
      } while (next_is(','));
      if (!expect(']', "',' or ']' in shape")) return false;
    }
    shape.assign(dims.begin(), dims.begin() + rank);  // sized exactly
    return true;
  }

  bool parse_offsets(std::array<int64_t, 2>& offsets) {
    return expect('[', "an array of two offsets") && parse_integer(offsets[0]) &&
           expect(',', "',' and the end offset") && parse_integer(offsets[1]) &&
           expect(']', "']' after two offsets");
  }

  /// Checks one tensor against the data there is and points it there.
  bool place(TensorView& tensor, int64_t begin, int64_t end) {
    const auto range = [&] {
      return where() + "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "]";
    };
    const auto kind = [&] {
      return std::string(dtype_name(tensor.dtype)) + " " + shape_string(tensor.shape);
    };
    if (begin > end) return fail(range() + " are reversed");
    if (static_cast<uint64_t>(end) > data_.size()) {
      return fail(range() + " end past the data, which has " + std::to_string(data_.size()) +
                  " bytes");
    }
    const auto bytes = tensor_bytes(tensor.shape, tensor.dtype);
    if (!bytes) return fail(where() + kind() + " is larger than 2^63 bits");
    if (*bytes != static_cast<uint64_t>(end - begin)) {
      return fail(range() + " span " + std::to_string(end - begin) + " bytes, expected " +
                  std::to_string(*bytes) + " for " + kind());
    }
    tensor.bytes = data_.subspan(static_cast<size_t>(begin), static_cast<size_t>(*bytes));
    tensor.owner = owner_;
    return true;
  }

  // --- whole file -------------------------------------------------------------------------

  size_t begin_of(const TensorView& t) const {
    return static_cast<size_t>(t.bytes.data() - data_.data());
  }

  /// An empty tensor stands before the one that starts at the same byte.
  void sort_by_data() {
    const auto before = [&](const TensorView& a, const TensorView& b) {
      return std::tuple(begin_of(a), a.bytes.size(), std::string_view(a.name)) <
             std::tuple(begin_of(b), b.bytes.size(), std::string_view(b.name));
    };
    std::vector<TensorView>& all = out_.tensors;
    if (!std::is_sorted(all.begin(), all.end(), before)) std::sort(all.begin(), all.end(), before);
  }

  bool check_layout() {
    size_t expected = 0;
    for (const TensorView& t : out_.tensors) {
      const size_t begin = begin_of(t);
      if (begin != expected) {
        return fail("tensor " + quote(t.name) + ": data starts at byte " + std::to_string(begin) +
                    (begin > expected ? " and leaves a hole" : " and overlaps another tensor") +
                    ", expected " + std::to_string(expected));
      }
      expected += t.bytes.size();
    }
    if (expected == data_.size()) return true;
    return fail("the tensors end at data byte " + std::to_string(expected) +
                ", expected the end of the file at " + std::to_string(data_.size()));
  }

  bool index_names() {
    const auto name = [&](uint32_t i) -> const std::string& { return out_.tensors[i].name; };
    out_.by_name.resize(out_.tensors.size());
    std::iota(out_.by_name.begin(), out_.by_name.end(), 0u);
    std::sort(out_.by_name.begin(), out_.by_name.end(),
              [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
    const auto twice =
        std::adjacent_find(out_.by_name.begin(), out_.by_name.end(),
                           [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
    return twice == out_.by_name.end() || fail("duplicate tensor name " + quote(name(*twice)));
  }

  size_t count_entries() const {
    constexpr std::string_view kKey = "\"data_offsets\"";
    size_t n = 0;
    const char* at = text_.data();
    const char* const end = at + text_.size();
    while ((at = static_cast<const char*>(::memmem(at, static_cast<size_t>(end - at), kKey.data(),
                                                   kKey.size()))) != nullptr) {
      at += kKey.size();
      ++n;
    }
    return n;
  }

  std::string_view text_;
  std::span<const std::byte> data_;
  const std::shared_ptr<const void>& owner_;
  const std::string& label_;
  size_t at_ = 0;                        // next byte of text_
  std::string key_;                      // scratch
  const std::string* tensor_ = nullptr;  // name of the entry being parsed, for messages
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
  SafetensorsHeader out_;
  Status error_;
};

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text,
                                                   std::span<const std::byte> data,
                                                   const std::shared_ptr<const void>& owner,
                                                   const std::string& label) {
  return HeaderParser(text, data, owner, label).run();
}

}  // namespace chimera
