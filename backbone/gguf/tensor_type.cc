#include "backbone/gguf/tensor_type.h"

#include <array>
#include <string_view>

#include "compute/tensor/block_types.h"

namespace chimera {
namespace {

/// Numbers of tensor types that Chimera does not read, for messages.
struct TypeName {
  uint32_t type;
  std::string_view name;
};
constexpr std::array kOtherTypes{
    TypeName{4, "Q4_2"},     TypeName{5, "Q4_3"},    TypeName{9, "Q8_1"},     TypeName{15, "Q8_K"},
    TypeName{16, "IQ2_XXS"}, TypeName{17, "IQ2_XS"}, TypeName{18, "IQ3_XXS"}, TypeName{19, "IQ1_S"},
    TypeName{21, "IQ3_S"},   TypeName{22, "IQ2_S"},  TypeName{23, "IQ4_XS"},  TypeName{29, "IQ1_M"},
    TypeName{34, "TQ1_0"},   TypeName{35, "TQ2_0"}};

struct PlainType {
  uint32_t type;
  DType dtype;
};
constexpr std::array kPlainTypes{PlainType{0, DType::kF32},  PlainType{1, DType::kF16},
                                 PlainType{24, DType::kI8},  PlainType{25, DType::kI16},
                                 PlainType{26, DType::kI32}, PlainType{27, DType::kI64},
                                 PlainType{28, DType::kF64}, PlainType{30, DType::kBF16}};

}  // namespace

std::optional<DType> gguf_dtype(uint32_t type) {
  for (const PlainType& plain : kPlainTypes) {
    if (plain.type == type) return plain.dtype;
  }
  for (const BlockType& block : block_types()) {
    if (block.gguf_type == type) return block.dtype;
  }
  return std::nullopt;
}

std::optional<uint32_t> gguf_type(DType dtype) {
  for (const PlainType& plain : kPlainTypes) {
    if (plain.dtype == dtype) return plain.type;
  }
  const BlockType* block = block_type(dtype);
  return block != nullptr ? block->gguf_type : std::nullopt;
}

std::string gguf_type_name(uint32_t type) {
  for (const TypeName& other : kOtherTypes) {
    if (other.type == type) return std::string(other.name);
  }
  return "number " + std::to_string(type);
}

std::string gguf_type_list() {
  std::string known = "F32, F16, BF16";
  for (const BlockType& block : block_types()) {
    if (block.gguf_type) known += ", " + std::string(block.name);
  }
  return known;
}

}  // namespace chimera
