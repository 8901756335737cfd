#include "router/fitting/fitted_files.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/json/writer.h"
#include "compute/tensor/convert.h"
#include "experts/assembly/arithmetic.h"
#include "experts/module/files.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

constexpr size_t kMostSideBytes = size_t{64} << 20;

std::string gate_name(int64_t layer, const char* tail) {
  return fmt::format("layers.{}.gate.{}", layer, tail);
}

size_t bytes_of(DType dtype) { return static_cast<size_t>(dtype_bits(dtype)) / 8; }

/// `values` as a tensor of `dtype`, which owns its bytes.
TensorView tensor_of(const std::string& name, std::vector<int64_t> shape, DType dtype,
                     const std::vector<float>& values) {
  if (is_block_type(dtype)) dtype = DType::kF32;  // what is fitted is no block of codes any more
  const std::vector<double> wide(values.begin(), values.end());
  auto bytes = std::make_shared<std::vector<std::byte>>(values.size() * bytes_of(dtype));
  (void)round_elements(wide.data(), wide.size(), dtype, bytes->data());  // finite, and small
  TensorView out;
  out.name = name;
  out.dtype = dtype;
  out.shape = std::move(shape);
  out.bytes = *bytes;
  out.owner = std::move(bytes);
  return out;
}

}  // namespace

Result<StoredGates> StoredGates::open(const std::string& dir, const Manifest& manifest) {
  StoredGates out;
  out.dir_ = dir;
  out.manifest_ = manifest;
  for (const ManifestFile& entry : manifest.files) {
    if (!entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    Result<SafetensorsFile> tensors = file->safetensors();
    if (!tensors.ok()) return tensors.status();
    out.files_.push_back({entry.path, std::move(*tensors)});
  }
  return out;
}

const TensorView* StoredGates::find(const std::string& name) const {
  for (const File& file : files_) {
    if (const TensorView* found = file.tensors.find(name)) return found;
  }
  return nullptr;
}

void StoredGates::round(int64_t layer, ModuleLayer& gates) const {
  const auto back = [](std::vector<float>& values, DType dtype) {
    const auto n = static_cast<int64_t>(values.size());
    const Result<std::vector<float>> stored = to_f32(tensor_of("", {n}, dtype, values), n);
    if (stored.ok()) values = *stored;
  };
  const TensorView* weight = find(gate_name(layer, "weight"));
  const TensorView* bias = find(gate_name(layer, "bias"));
  if (weight != nullptr) back(gates.gate_weight, weight->dtype);
  if (bias != nullptr) back(gates.gate_bias, bias->dtype);
}

Status StoredGates::write(const Module& fitted, const Json& how, const std::string& out_dir) const {
  Result<OutputDirectory> out = OutputDirectory::create(out_dir);
  if (!out.ok()) return out.status();
  Manifest manifest = manifest_;
  manifest.parents.push_back(write_json(how));
  manifest.probe_max_bits_per_byte.reset();
  for (const File& file : files_) {
    std::vector<TensorView> tensors;
    for (const TensorView& tensor : file.tensors.tensors()) {
      bool gate = false;
      for (const auto& [layer, part] : fitted.layers) {
        const auto n = static_cast<int64_t>(part.experts.size());
        if (tensor.name == gate_name(layer, "weight")) {
          gate = true;
          tensors.push_back(tensor_of(tensor.name, tensor.shape, tensor.dtype, part.gate_weight));
          // Beside the rows, whether there was one or not.
          const TensorView* bias = find(gate_name(layer, "bias"));
          tensors.push_back(tensor_of(gate_name(layer, "bias"), {n},
                                      bias != nullptr ? bias->dtype : DType::kF32, part.gate_bias));
        }
        gate = gate || tensor.name == gate_name(layer, "bias");
      }
      if (!gate) tensors.push_back(tensor);
    }
    const std::string path = out->partial() + "/" + file.path;
    std::error_code failed;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
    CHIMERA_RETURN_IF_ERROR(write_safetensors(path, tensors, file.tensors.metadata()));
  }
  for (ManifestFile& entry : manifest.files) {
    const std::string path = out->partial() + "/" + entry.path;
    if (!entry.path.ends_with(".safetensors")) {
      const Result<ModuleFile> file = ModuleFile::open(dir_, entry.path);
      if (!file.ok()) return file.status();
      const Result<std::string> text = file->text(kMostSideBytes);
      if (!text.ok()) return text.status();
      std::error_code failed;
      std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
      CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), path, *text, 0644));
    }
    Result<std::string> digest = sha256_of_file(path);
    if (!digest.ok()) return digest.status();
    entry.sha256 = std::move(*digest);
  }
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), out->partial() + "/module.yaml",
                                             manifest_yaml(manifest), 0644));
  return out->commit();
}

}  // namespace chimera
