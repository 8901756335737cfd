#include "experts/offline/convert.h"

#include <cstring>
#include <new>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "base/io/env.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "experts/module/checkpoint_check.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

DType dtype_of(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return DType::kF32;
    case StoredType::kF16:
      return DType::kF16;
    case StoredType::kBF16:
      return DType::kBF16;
  }
  return DType::kF32;
}

/// Weights that have scales beside them.
bool is_fp8(const TensorView& t) { return t.dtype == DType::kF8E4M3 && t.shape.size() == 2; }

bool is_fp8_scale(const Checkpoint& checkpoint, const std::string& name) {
  constexpr std::string_view kTail = "_scale_inv";
  if (!name.ends_with(kTail)) return false;
  const TensorView* weight = checkpoint.find(name.substr(0, name.size() - kTail.size()));
  return weight != nullptr && is_fp8(*weight);
}

/// FP8 weights with their scales, as F32.
Result<TensorView> widened(const Checkpoint& checkpoint, const TensorView& t) {
  const Result<Matrix> matrix = checkpoint.matrix(t.name, t.shape[0], t.shape[1], Precision::kF32);
  if (!matrix.ok()) return matrix.status();
  TensorView out = t;
  out.dtype = DType::kF32;
  out.bytes = {static_cast<const std::byte*>(matrix->data), matrix->bytes()};
  out.owner = matrix->owner;
  return out;
}

/// config.json of the checkpoint once nothing in it is FP8.
Result<std::string> plain_config(const Checkpoint& checkpoint) {
  Result<Json> config =
      parse_json(checkpoint.config_json(), {.duplicates = DuplicateKeys::kLastCounts});
  if (!config.ok()) return config.status();
  for (Json* level : {&*config, config->find("text_config")}) {
    if (level != nullptr) level->erase("quantization_config");
  }
  return write_json(*config, {.indent = 2}) + "\n";
}

/// The type that `t` is written in.
DType target(const TensorView& t, std::optional<StoredType> asked) {
  const bool plain = t.dtype == DType::kF32 || t.dtype == DType::kF16 || t.dtype == DType::kBF16;
  if (!plain && !is_block_type(t.dtype) && !is_fp8(t)) return t.dtype;  // groups and the like
  if (asked) return dtype_of(*asked);
  return plain ? t.dtype : DType::kBF16;
}

/// `t` in `dtype`, in memory of its own unless it is stored so.
Result<TensorView> converted(const TensorView& t, DType dtype) {
  if (t.dtype == dtype) return t;
  TensorView flat = t;
  flat.shape = {t.elements()};
  const Result<std::vector<float>> values = to_f32(flat, -1);
  if (!values.ok()) return values.status();
  std::byte* to = nullptr;
  TensorView out = make_unset_tensor(t.name, dtype, t.shape, &to);
  if (dtype == DType::kF32) {
    std::memcpy(to, values->data(), out.bytes.size());
    return out;
  }
  for (size_t i = 0; i < values->size(); ++i) {
    const float value = (*values)[i];
    const uint16_t bits = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(to + 2 * i, &bits, sizeof(bits));
  }
  return out;
}

Status write_all(const Checkpoint& checkpoint, const ConvertOptions& options,
                 const std::string& dir, ConvertReport& report) {
  std::vector<TensorView> plan;
  for (const std::string& name : checkpoint.names()) {
    if (is_fp8_scale(checkpoint, name)) continue;
    TensorView t = *checkpoint.find(name);
    t.dtype = target(t, options.type);
    t.bytes = {};
    t.source = nullptr;
    report.bytes += static_cast<uint64_t>(dense_bytes(t.dtype, t.shape).value_or(0));
    plan.push_back(std::move(t));
  }
  report.tensors = plan.size();
  return write_checkpoint_tensors(dir, plan, options.shard_bytes, [&](const TensorView& planned) {
    const TensorView& stored = *checkpoint.find(planned.name);
    if (!is_fp8(stored)) return converted(stored, planned.dtype);
    const Result<TensorView> wide = widened(checkpoint, stored);
    return wide.ok() ? converted(*wide, planned.dtype) : wide;
  });
}

}  // namespace

Result<ConvertReport> convert_checkpoint(const ConvertOptions& options) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(options.from, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  CHIMERA_RETURN_IF_ERROR(checkpoint->check_unpacked());
  const Result<ModelConfig> config = read_model_config(*checkpoint);
  if (!config.ok()) return config.status();
  CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(*checkpoint, *config));
  const bool fp8 = config->quant_method == "fp8";
  if (!config->quant_method.empty() && !fp8)
    return Status(Code::kUnimplemented,
                  options.from + ": is quantised as " + config->quant_method +
                      " (expected F32, F16, BF16, FP8, integers with scales or a GGUF file)");
  Result<OutputDirectory> out = OutputDirectory::create(options.out);
  if (!out.ok()) return out.status();
  ConvertReport report;
  CHIMERA_RETURN_IF_ERROR(write_all(*checkpoint, options, out->partial(), report));
  CHIMERA_RETURN_IF_ERROR(copy_side_files(*checkpoint, out->partial()));
  const Result<std::string> text =
      fp8 ? plain_config(*checkpoint) : Result<std::string>(checkpoint->config_json());
  if (!text.ok()) return text.status();
  CHIMERA_RETURN_IF_ERROR(
      write_file_durably(Env::system(), out->partial() + "/config.json", *text, 0644));
  CHIMERA_RETURN_IF_ERROR(out->commit());
  return report;
}

}  // namespace chimera
