// Integers with scales per group of inputs, however a scheme lays them out, as blocks of
// compute/tensor/block_types.h or, where these cannot say them, as F32. Private to this folder.
//
//   value = (code - zero) * scale    or    code * scale + offset
//
// Which type a matrix gets is seen from the headers (and the order of its inputs) alone:
//   zero fixed at 2^(bits - 1)                   INT4 (up to 4 bits), INT8
//   zero or offset per group, 16-bit scales      INT4_AFFINE, INT8_AFFINE
//   inputs in another order than their groups, inputs or groups that are no multiple of 32, zeros
//   with scales in F32                           F32
// All of these hold every value exactly: the product of a code and a number of 16 bits fits F32,
// and so does -zero * scale.
//
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

struct IntegerMatrix {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  int bits = 0;
  int64_t group = 0;  // inputs that share a scale; the last group may be shorter
  /// Codes from 0 to 2^bits - 1 of rows [first, first + count) into out [count, cols].
  std::function<void(int64_t first, int64_t count, uint8_t* out)> codes;
  std::function<float(int64_t row, int64_t group)> scale;
  /// Exactly one of these.
  std::function<int(int64_t row, int64_t group)> zero;
  std::function<float(int64_t row, int64_t group)> offset;
  bool symmetric = false;      // `zero` is 2^(bits - 1) everywhere: anything else is an error
  bool narrow_scales = false;  // F16 or BF16
  std::optional<TensorView> group_of;  // I32 [cols]: the group of every input
  std::vector<TensorView> parts;       // what it is made from

  int64_t groups() const { return (cols + group - 1) / group; }
};

/// A tensor [rows, cols] that is made when it is loaded. data_corrupt then: a group that is not
/// there, another zero than a symmetric matrix has.
TensorView integer_tensor(IntegerMatrix matrix);

/// Number `i` of a tensor of F16, BF16 or F32, of any alignment.
float number_at(const TensorView& t, int64_t i);
/// Word `i` of a tensor of I32 or U32.
uint32_t word_at(const TensorView& t, int64_t i);

inline constexpr DType kNumberTypes[] = {DType::kF16, DType::kBF16, DType::kF32};
inline constexpr DType kWordTypes[] = {DType::kI32, DType::kU32};
inline bool is_narrow(DType dtype) { return dtype != DType::kF32; }

}  // namespace chimera
