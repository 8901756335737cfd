#include "compute/tensor/precision.h"

#include <algorithm>

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

bool same_packing(const PrecisionPlan& a, const PrecisionPlan& b) {
  return packed_format(a.experts) == packed_format(b.experts) &&
         packed_format(a.attention) == packed_format(b.attention) &&
         packed_format(a.head) == packed_format(b.head);
}

std::optional<PrecisionPlan> parse_precision_plan(std::string_view text) {
  if (const auto all = kPrecisionNames.find(text)) return PrecisionPlan(*all);
  PrecisionPlan plan;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    const size_t equals = std::min(part.find('='), part.size());
    const std::string_view name = part.substr(0, equals);
    Precision* const place = name == "experts"     ? &plan.experts
                             : name == "attention" ? &plan.attention
                             : name == "head"      ? &plan.head
                                                   : nullptr;
    const auto value = kPrecisionNames.find(part.substr(std::min(equals + 1, part.size())));
    if (place == nullptr || !value) return std::nullopt;
    *place = *value;
    at = end + 1;
  }
  return plan;
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
