#include "backbone/gguf/value.h"

#include <limits>

namespace chimera {
namespace {

using Problem = std::optional<std::string>;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

/// Bytes that a value takes at least; 0: no such type.
uint64_t least_bytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kString:
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    case kArray:
      return 12;
    default:
      return 0;
  }
}

double read_real(GgufCursor& cursor, uint32_t type) {
  return type == kFloat32 ? double{cursor.number<float>()} : cursor.number<double>();
}

/// Nothing for one of more than 63 bits, or for a boolean that is neither 0 nor 1.
std::optional<int64_t> read_integer(GgufCursor& cursor, uint32_t type) {
  switch (type) {
    case kUint8:
      return cursor.number<uint8_t>();
    case kInt8:
      return cursor.number<int8_t>();
    case kUint16:
      return cursor.number<uint16_t>();
    case kInt16:
      return cursor.number<int16_t>();
    case kUint32:
      return cursor.number<uint32_t>();
    case kInt32:
      return cursor.number<int32_t>();
    case kInt64:
      return cursor.number<int64_t>();
    case kBool: {
      const auto value = cursor.number<uint8_t>();
      return value > 1 ? std::nullopt : std::optional<int64_t>(value);
    }
    default: {
      const auto value = cursor.number<uint64_t>();
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
  }
}

Problem read_integers(GgufCursor& cursor, uint32_t type, size_t count, GgufValue& value) {
  auto& numbers = value.emplace<std::vector<int64_t>>();
  numbers.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const std::optional<int64_t> number = read_integer(cursor, type);
    if (!number)
      return "holds what does not fit 63 bits or is no boolean, as value " + std::to_string(i);
    numbers.push_back(*number);
  }
  return std::nullopt;
}

Problem read_list(GgufCursor& cursor, GgufValue& value) {
  const auto type = cursor.number<uint32_t>();
  const auto count = cursor.number<uint64_t>();
  if (!cursor.good()) return std::nullopt;
  const uint64_t least = least_bytes(type);
  if (least == 0 || type == kArray)
    return "is a list of the type " + std::to_string(type) +
           " (expected numbers, booleans or texts)";
  if (count > cursor.left() / least)
    return "says that it has " + std::to_string(count) + " values, more than the file has room for";
  const auto n = static_cast<size_t>(count);
  if (type == kString) {
    auto& texts = value.emplace<std::vector<std::string>>();
    texts.reserve(n);
    for (size_t i = 0; i < n && cursor.good(); ++i) texts.emplace_back(cursor.text());
    return std::nullopt;
  }
  if (type != kFloat32 && type != kFloat64) return read_integers(cursor, type, n, value);
  auto& numbers = value.emplace<std::vector<double>>();
  numbers.reserve(n);
  for (size_t i = 0; i < n; ++i) numbers.push_back(read_real(cursor, type));
  return std::nullopt;
}

}  // namespace

std::optional<std::string> read_gguf_value(GgufCursor& cursor, uint32_t type, GgufValue& value) {
  if (type == kArray) return read_list(cursor, value);
  if (least_bytes(type) == 0) return "has the type " + std::to_string(type) + " (expected 0 to 12)";
  if (type == kFloat32 || type == kFloat64) {
    value = read_real(cursor, type);
  } else if (type == kString) {
    value = std::string(cursor.text());
  } else {
    const std::optional<int64_t> number = read_integer(cursor, type);
    if (!number) return "does not fit 63 bits, or is no boolean";
    if (type == kBool)
      value = *number != 0;
    else
      value = *number;
  }
  return std::nullopt;
}

}  // namespace chimera
