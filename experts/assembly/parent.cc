#include "experts/assembly/parent.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "backbone/checkpoint/check.h"
#include "base/quote.h"
#include "experts/module/base_tensors.h"
#include "experts/module/tensors.h"

namespace chimera {
namespace {

constexpr std::string_view kFp8Scale = "_scale_inv";
constexpr std::string_view kBlocks = "_blocks", kScales = "_scales";

std::string without_tail(const std::string& name, std::string_view tail) {
  return name.substr(0, name.size() - tail.size());
}

/// Their numbers cannot be taken one by one.
Status refuse_blocks(const TensorView& tensor) {
  const bool packed = is_packed_type(tensor.dtype);
  if (!is_block_type(tensor.dtype) && !packed && tensor.source == nullptr) return {};
  return {Code::kUnimplemented,
          "tensor " + quote(tensor.name) + " is stored as " +
              std::string(dtype_name(tensor.dtype)) + " (expected F32, F16, BF16, FP8 or MXFP4)",
          packed ? "Use the module that it was packed from."
                 : "Convert the parent's checkpoint with `chimera module convert`."};
}

/// A projection of MXFP4 as a module stores it: blocks [out, in / 32, 16] and scales.
Result<TensorData> mxfp4_data(const TensorView& blocks, const TensorView* scales) {
  const std::vector<int64_t>& shape = blocks.shape;
  const bool good = scales != nullptr && blocks.dtype == DType::kU8 && shape.size() == 3 &&
                    shape[2] == kMxfp4BlockBytes && scales->dtype == DType::kU8 &&
                    scales->shape == std::vector<int64_t>{shape[0], shape[1]};
  if (!good) {
    return Status(Code::kDataCorrupt,
                  "tensor " + quote(blocks.name) +
                      ": found no scales of its shape (expected MXFP4 blocks with scales)");
  }
  StoredProjection projection;
  projection.encoding = Encoding::kMxfp4;
  projection.rows = shape[0];
  projection.cols = shape[1] * kMxfp4Block;
  projection.weight = whole_part(blocks);
  projection.scale = whole_part(*scales);
  Result<QuantMatrix> matrix = quant_matrix(projection, {});
  if (!matrix.ok()) return matrix.status();
  return TensorData(std::move(*matrix));
}

}  // namespace

void Parent::add(TensorTraits traits, TensorData data) {
  order_.push_back(traits.name);
  std::string name = traits.name;
  tensors_.emplace(std::move(name), ParentTensor{std::move(traits), std::move(data)});
}

Status Parent::add_plain(const TensorView& tensor, TensorTraits traits,
                         const std::function<const TensorView*(const std::string&)>& find,
                         BlockShape block) {
  const std::string& name = tensor.name;
  CHIMERA_RETURN_IF_ERROR(refuse_blocks(tensor));
  // Scales go with their weights.
  if (name.ends_with(kFp8Scale) && find(without_tail(name, kFp8Scale)) != nullptr) return {};
  if (name.ends_with(kScales) &&
      find(without_tail(name, kScales) + std::string(kBlocks)) != nullptr)
    return {};
  if (tensor.dtype == DType::kF8E4M3) {
    const TensorView* scale = find(name + std::string(kFp8Scale));
    if (scale == nullptr) {
      return {Code::kDataCorrupt, "tensor " + quote(name) +
                                      ": found FP8 weights without scales (expected the tensor " +
                                      quote(name + std::string(kFp8Scale)) + ")"};
    }
    Result<QuantMatrix> matrix = fp8_matrix(tensor, *scale, block);
    if (!matrix.ok()) return matrix.status();
    add(std::move(traits), TensorData(std::move(*matrix)));
    return {};
  }
  if (name.ends_with(kBlocks) && tensor.dtype == DType::kU8) {
    Result<TensorData> data =
        mxfp4_data(tensor, find(without_tail(name, kBlocks) + std::string(kScales)));
    if (!data.ok()) return data.status();
    traits.name = without_tail(traits.name, kBlocks);
    add(std::move(traits), std::move(*data));
    return {};
  }
  add(std::move(traits), TensorData(tensor));
  return {};
}

/// The experts of a layer that keeps them in stacks.
Status Parent::add_stacks(int64_t layer) {
  const Result<BaseLayer> base = read_base_layer(*checkpoint_, *config_, layer);
  if (!base.ok()) return base.status();
  for (size_t e = 0; e < base->experts.size(); ++e) {
    const auto slot = static_cast<int64_t>(e);
    for (size_t p = 0; p < kProjections.size(); ++p) {
      const StoredProjection& projection = base->experts[e][p];
      for (const Part part : {kWeightPart, kBiasPart}) {
        const StoredPart* stored = part_of(projection, part);
        if (stored == nullptr) continue;
        CHIMERA_RETURN_IF_ERROR(refuse_blocks(stored->tensor));
        TensorTraits traits = traits_of(*config_, stored->tensor.name);
        traits.name = single_tensor_name(*config_, layer, slot, p, Encoding::kPlain, part);
        traits.slot = slot;
        if (part == kWeightPart && projection.encoding != Encoding::kPlain) {
          Result<QuantMatrix> matrix = quant_matrix(projection, checkpoint_->block_shape());
          if (!matrix.ok()) return matrix.status();
          add(std::move(traits), TensorData(std::move(*matrix)));
        } else {
          add(std::move(traits), TensorData(*stored));
        }
      }
    }
  }
  return {};
}

Status Parent::read_checkpoint() {
  Result<Checkpoint> checkpoint = Checkpoint::open(path_, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  CHIMERA_RETURN_IF_ERROR(checkpoint->check_unpacked());
  checkpoint_ = std::make_shared<const Checkpoint>(std::move(*checkpoint));
  Result<ModelConfig> config = read_model_config(*checkpoint_);
  if (!config.ok()) return config.status();
  config_ = std::move(*config);
  std::set<std::string> in_stacks;
  std::map<std::string, int64_t> first_stack;  // where a layer's experts are added
  for (const int64_t layer : moe_layers(*config_)) {
    const auto layout = stack_layout(*checkpoint_, *config_, layer);
    if (!layout) continue;
    for (const StackSpec& spec : layout->stacks) {
      in_stacks.insert(layer_tensor(*config_, layer, spec.tail));
    }
    first_stack.emplace(layer_tensor(*config_, layer, layout->stacks.front().tail), layer);
  }
  const auto find = [this](const std::string& name) { return checkpoint_->find(name); };
  for (const auto& file : checkpoint_->files()) {
    for (const TensorView& tensor : file->tensors()) {
      const auto stack = first_stack.find(tensor.name);
      if (stack != first_stack.end()) CHIMERA_RETURN_IF_ERROR(add_stacks(stack->second));
      if (in_stacks.count(tensor.name) != 0) continue;
      CHIMERA_RETURN_IF_ERROR(
          add_plain(tensor, traits_of(*config_, tensor.name), find, checkpoint_->block_shape())
              .with_context(path_));
    }
  }
  return {};
}

Status Parent::read_module() {
  Result<Manifest> manifest = read_manifest(path_, Sealing::kUnsealed);
  if (!manifest.ok()) return manifest.status();
  manifest_ = std::move(*manifest);
  if (manifest_->kind != ModuleKind::kWeights) {
    return {Code::kUnimplemented,
            fmt::format("{}: found a module of kind {} (expected weights: a parent is made of "
                        "tensors)",
                        path_, kModuleKindNames.name(manifest_->kind))};
  }
  for (const ManifestFile& file : manifest_->files) {
    Result<SafetensorsFile> opened =
        SafetensorsFile::open(path_ + "/" + file.path, Residency::kMapped);
    if (!opened.ok()) return opened.status();
    module_files_.push_back(std::move(*opened));
  }
  const Result<ModuleTensors> sorted = sort_module_tensors(module_files_);
  if (!sorted.ok()) return sorted.status().with_context(path_);
  const BlockShape block = sorted->empty() ? BlockShape{} : sorted->begin()->second.fp8_block;
  const auto find = [this](const std::string& name) -> const TensorView* {
    for (const SafetensorsFile& file : module_files_) {
      if (const TensorView* found = file.find(name)) return found;
    }
    return nullptr;
  };
  for (const SafetensorsFile& file : module_files_) {
    for (const TensorView& tensor : file.tensors()) {
      CHIMERA_RETURN_IF_ERROR(
          add_plain(tensor, module_traits_of(tensor.name), find, block).with_context(path_));
    }
  }
  return {};
}

Result<Parent> Parent::open(const std::string& path) {
  Parent parent;
  parent.path_ = path;
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    return Status(Code::kNotFound,
                  path + ": found no directory (expected a checkpoint or a module)");
  }
  const bool module = std::filesystem::exists(path + "/module.yaml", error);
  CHIMERA_RETURN_IF_ERROR(module ? parent.read_module() : parent.read_checkpoint());
  return parent;
}

const ParentTensor* Parent::find(const std::string& name) const {
  const auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

bool Parent::any_quantised() const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [](const auto& entry) { return entry.second.data.quantised(); });
}

std::vector<const TensorFile*> Parent::files() const {
  std::vector<const TensorFile*> out;
  if (checkpoint_ != nullptr) {
    for (const auto& file : checkpoint_->files()) out.push_back(file.get());
  }
  for (const SafetensorsFile& file : module_files_) out.push_back(&file);
  return out;
}

}  // namespace chimera
