#include "compute/tensor/precision.h"

namespace chimera {

std::optional<WeightFormat> packed_format(Precision p) {
  switch (p) {
    case Precision::kF32:
    case Precision::kBF16:
      return std::nullopt;
    case Precision::kQ8:
      return WeightFormat::kQ8;
    case Precision::kQ4:
      return WeightFormat::kQ4;
  }
  return std::nullopt;
}

PrecisionPlan::PrecisionPlan(Precision all) : experts(all) {
  if (!packed_format(all)) return;
  attention = Precision::kQ8;
  head = Precision::kQ8;
}

std::string PrecisionPlan::name() const {
  if (*this == PrecisionPlan(experts)) return kPrecisionNames.text(experts);
  std::string out = "experts ";
  out += kPrecisionNames.name(experts);
  out += ", attention ";
  out += kPrecisionNames.name(attention);
  out += ", head ";
  out += kPrecisionNames.name(head);
  return out;
}

}  // namespace chimera
