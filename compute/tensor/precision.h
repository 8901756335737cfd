// How weights are kept in memory, for all of a model or class by class.
//
// Thread safety: plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/enum_names.h"
#include "compute/tensor/weight_format.h"

namespace chimera {

/// kF32 keeps BF16 and F16 tensors as they are (lossless); kBF16 rounds all others; kQ8 and kQ4
/// pack them, and keep K types of GGUF, IQ4_NL and MXFP4 number for number (kQ4: those of at most
/// four bits). What a checkpoint stores quantised stays as it is otherwise.
enum class Precision : uint8_t { kF32, kBF16, kQ8, kQ4 };

inline constexpr auto kPrecisionNames = enum_names<Precision>("f32", "bf16", "q8", "q4");

/// The packed format behind a precision; none for kF32 and kBF16.
std::optional<WeightFormat> packed_format(Precision p);

/// A precision for each class of tensors. Gates, norms and biases are F32 always: they decide the
/// routing, and one flipped choice costs more accuracy than a few wide rows cost memory. So does
/// attention, for which kBF16 of the whole means "as stored".
struct PrecisionPlan {
  Precision experts = Precision::kBF16;  // routed experts; packed: dense and shared ones as well
  Precision attention = Precision::kF32;
  Precision head = Precision::kF32;

  PrecisionPlan() = default;
  /// What one name for all of a model means:
  ///   f32    as stored            bf16   experts bf16, the rest as stored
  ///   q8     all q8               q4     experts q4, attention and head q8
  /*implicit*/ PrecisionPlan(Precision all);
  bool operator==(const PrecisionPlan&) const = default;

  /// Of feed-forwards that belong to the backbone.
  Precision dense() const { return packed_format(experts) ? experts : Precision::kF32; }
  /// "q8", or "experts q4, attention q8, head f32".
  std::string name() const;
};

/// Whether weights packed for one plan run under the other.
bool same_packing(const PrecisionPlan& a, const PrecisionPlan& b);
/// "q4", or "experts=q4,attention=q8,head=q8" with those that are not named as by default; nothing
/// for other texts.
std::optional<PrecisionPlan> parse_precision_plan(std::string_view text);

}  // namespace chimera
