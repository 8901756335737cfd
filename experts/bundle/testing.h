// For tests: bundles made of modules of weights and of random changes to a backbone.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/needed_tensors.h"
#include "base/io/digest.h"
#include "base/io/env.h"
#include "compute/tensor/convert.h"
#include "experts/assembly/arithmetic.h"
#include "experts/module/manifest.h"

namespace chimera::testing {

/// A tensor of these numbers, rounded to F32, F16 or BF16.
inline TensorView tensor_of(const std::string& name, DType dtype, std::vector<int64_t> shape,
                            const std::vector<double>& values) {
  const size_t bytes = values.size() * static_cast<size_t>(dtype_bits(dtype)) / 8;
  const std::shared_ptr<std::byte[]> memory(new std::byte[bytes]);
  EXPECT_TRUE(round_elements(values.data(), values.size(), dtype, memory.get())) << name;
  return {name, dtype, std::move(shape), {memory.get(), bytes}, memory};
}

inline std::vector<double> values_of(const TensorView& tensor) {
  TensorView flat = tensor;
  flat.shape = {tensor.elements()};
  const auto values = to_f32(flat, flat.shape[0]);
  EXPECT_TRUE(values.ok()) << values.status().to_string();
  if (!values.ok()) return {};
  return {values->begin(), values->end()};
}

/// Every tensor of the backbone, in its order.
inline std::vector<NeededTensor> all_needed(const ModelConfig& config) {
  std::vector<NeededTensor> all = needed_model_tensors(config);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    for (NeededTensor& needed : needed_layer_tensors(config, l)) all.push_back(std::move(needed));
  }
  return all;
}

/// How random changes are made.
struct RandomChanges {
  unsigned seed = 1;
  std::function<bool(const NeededTensor&)> of;  // null: of every tensor
  int64_t rank = 0;                             // of matrices; 0: tensors as a whole
  DType dtype = DType::kF32;
};

/// The tensors of a shared file: those of the checkpoint with noise, or the two of a low rank.
inline std::vector<TensorView> random_changes(const Checkpoint& checkpoint,
                                              const ModelConfig& config,
                                              const RandomChanges& wanted) {
  std::mt19937 rng(wanted.seed);
  std::normal_distribution<double> noise(0.0, 0.05);
  const auto random = [&](int64_t n) {
    std::vector<double> values(static_cast<size_t>(n));
    for (double& v : values) v = noise(rng);
    return values;
  };
  std::vector<TensorView> out;
  for (const NeededTensor& needed : all_needed(config)) {
    if (wanted.of && !wanted.of(needed)) continue;
    if (wanted.rank > 0 && needed.shape.size() == 2) {
      const int64_t rank = wanted.rank;
      out.push_back(tensor_of(needed.name + ".delta_a", wanted.dtype, {rank, needed.shape[1]},
                              random(rank * needed.shape[1])));
      out.push_back(tensor_of(needed.name + ".delta_b", wanted.dtype, {needed.shape[0], rank},
                              random(rank * needed.shape[0])));
      continue;
    }
    std::vector<double> values = values_of(*checkpoint.find(needed.name));
    const std::vector<double> by = random(static_cast<int64_t>(values.size()));
    for (size_t i = 0; i < values.size(); ++i) values[i] += by[i];
    out.push_back(tensor_of(needed.name, wanted.dtype, needed.shape, values));
  }
  return out;
}

/// Writes a copy of the weights module `from` as the bundle `to`, which has these tensors, too.
inline void write_bundle(const std::string& from, const std::string& to,
                         const std::vector<TensorView>& shared, double weight = 1.0) {
  std::filesystem::copy(from, to);
  Result<Manifest> manifest = read_manifest(from);
  ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
  const std::string file = to + "/shared.safetensors";
  const Status written = write_safetensors(file, shared, {});
  ASSERT_TRUE(written.ok()) << written.to_string();
  const Result<std::string> digest = sha256_of_file(file);
  ASSERT_TRUE(digest.ok()) << digest.status().to_string();
  manifest->kind = ModuleKind::kBundle;
  manifest->files.push_back({"shared.safetensors", *digest});
  manifest->shared = {"shared.safetensors", weight};
  const Status sealed =
      write_file_durably(Env::system(), to + "/module.yaml", manifest_yaml(*manifest), 0644);
  ASSERT_TRUE(sealed.ok()) << sealed.to_string();
}

}  // namespace chimera::testing
