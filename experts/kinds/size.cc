#include "experts/kinds/size.h"

#include "compute/tensor/convert.h"
#include "experts/assembly/in_memory.h"
#include "experts/assembly/source.h"
#include "experts/kinds/bundle_module.h"
#include "experts/lora/build.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

// A plugin host without its plugin: code, stacks, heap of a fresh process.
constexpr uint64_t kHostBytes = 8u << 20;

/// What becomes of one tensor of a weights module.
struct Kept {
  bool in_place = false;  // the file's copy stays for it
  uint64_t bytes = 0;     // else: of what is made from it
};

/// Bytes are codes and scales of MXFP4. In place they take less than in their own format, where
/// they stay in blocks of 32 weights of an output, [outputs, blocks, 16].
Kept kept_bytes(const TensorView& tensor, Precision precision) {
  if (!packed_format(precision)) return {true, 0};
  if (tensor.shape.size() != 3) return {false, 0};
  return {false, static_cast<uint64_t>(weight_bytes(WeightFormat::kMXFP4, tensor.shape[0],
                                                    tensor.shape[1] * kBlockInputs))};
}

Kept kept(const TensorView& tensor, Precision precision) {
  switch (tensor.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
    case DType::kU8:
      return kept_bytes(tensor, precision);
    default:  // quantised already
      if (is_packed_type(tensor.dtype)) return {true, 0};
      if (!packed_format(precision)) return {true, 0};
  }
  const auto elements = static_cast<uint64_t>(tensor.elements());
  // Gate rows, biases and scales are numbers of a row each: F32.
  const bool gate = tensor.name.find(".gate.") != std::string::npos;
  if (gate || tensor.shape.size() < 2) return {false, elements * sizeof(float)};
  const WeightFormat format = charged_format(tensor.dtype, precision);
  if (is_packed(format)) {
    const int64_t cols = tensor.shape.back();
    const int64_t rows = cols == 0 ? 0 : tensor.elements() / cols;
    return {false, static_cast<uint64_t>(weight_bytes(format, rows, cols))};
  }
  if (is_stored_as(tensor.dtype, format)) return {true, 0};
  return {false, elements * static_cast<uint64_t>(info_of(format).element_bytes)};
}

/// failed_precondition: a tensor is packed for another precision.
Status add_file(const SafetensorsFile& file, Precision precision, ModuleSize* size) {
  bool stays = false;
  uint64_t made = 0;
  for (const TensorView& tensor : file.tensors()) {
    CHIMERA_RETURN_IF_ERROR(check_packed_for(tensor, precision));
    const Kept one = kept(tensor, precision);
    stays = stays || one.in_place;
    made += one.bytes;
  }
  size->files += file.file_bytes();
  size->resident += made + (stays ? file.file_bytes() : 0);
  size->loading += made + file.file_bytes();
  return {};
}

/// Of the tensors of the backbone that a bundle changes. Its file stays, for averages.
Status add_shared(const std::string& dir, const Manifest& manifest, const BackboneInfo& backbone,
                  uint64_t file, ModuleSize* size) {
  const auto changes = bundle_changes(dir, manifest, backbone.config);
  if (!changes.ok()) return changes.status();
  uint64_t widest = 0;  // as F32
  for (const SharedChange& change : *changes) {
    uint64_t elements = 1;
    for (const int64_t n : change.needed.shape) elements *= static_cast<uint64_t>(n);
    widest += elements * sizeof(float);
  }
  // Without the backbone nobody knows what it keeps them in.
  const MadeBytes made =
      backbone.source ? made_of(*backbone.source, *changes) : MadeBytes{widest, 2 * widest};
  size->files += file;
  size->resident += file + made.resident;
  size->loading += file + made.making;
  return {};
}

}  // namespace

ModuleSize assembled_size(const AssemblyPlan& plan, const BackboneInfo& backbone) {
  ModuleSize size;
  for (const TensorView& tensor : planned_tensors(plan)) {
    const Kept one = kept(tensor, backbone.precision);
    const uint64_t stored = tensor.bytes.size();
    size.resident += one.in_place ? stored : one.bytes;
    size.loading += one.in_place ? stored : stored + one.bytes;
  }
  size.files = plan.input_bytes();
  return size;
}

Result<ModuleSize> module_size(const std::string& dir, const Manifest& manifest,
                               const BackboneInfo& backbone) {
  ModuleSize size;
  if (manifest.kind == ModuleKind::kAssembly) {
    const auto source = AssemblySource::open(dir, manifest);
    if (!source.ok()) return source.status();
    const Result<AssemblyPlan> plan = (*source)->plan({});
    if (!plan.ok()) return plan.status();
    return assembled_size(*plan, backbone);
  }
  for (const ManifestFile& entry : manifest.files) {
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    if (manifest.shared && manifest.shared->file == entry.path) {
      const Result<uint64_t> bytes = file->size();
      if (!bytes.ok()) return bytes.status();
      CHIMERA_RETURN_IF_ERROR(add_shared(dir, manifest, backbone, *bytes, &size));
      continue;
    }
    const bool experts =
        manifest.kind == ModuleKind::kWeights || manifest.kind == ModuleKind::kBundle;
    if (experts && entry.path.ends_with(".safetensors")) {
      const Result<SafetensorsFile> header = file->header();
      if (!header.ok()) return header.status();
      CHIMERA_RETURN_IF_ERROR(
          add_file(*header, backbone.precision, &size).with_context("module " + manifest.name));
      continue;
    }
    if (manifest.kind == ModuleKind::kLora && entry.path.ends_with(".safetensors")) {
      const Result<SafetensorsFile> header = file->header();
      if (!header.ok()) return header.status();
      size.files += header->file_bytes();
      size.resident += header->file_bytes() + built_bytes(*header, backbone.config.num_experts);
      size.loading += header->file_bytes() + built_bytes(*header, backbone.config.num_experts);
      continue;
    }
    const Result<uint64_t> bytes = file->size();
    if (!bytes.ok()) return bytes.status();
    size.files += *bytes;
    if (manifest.kind == ModuleKind::kLibrary) {
      size.resident += *bytes;
      size.loading += *bytes;
    }
  }
  if (manifest.library && manifest.library->isolation == Isolation::kProcess) {
    size.resident += kHostBytes;
    size.loading += kHostBytes;
  }
  return size;
}

}  // namespace chimera
