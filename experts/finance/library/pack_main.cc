// Build step of the finance library module. No part of the daemon.
//   finance-pack weights MODULE_DIR OUT.bin GATE.safetensors
//       packs the experts of a weights module (packed.h) and writes its gate rows by themselves
//   finance-pack module MODULE_DIR OUT_DIR LIBRARY.so process|in-process SLOW
//       writes OUT_DIR/module.yaml for the library and the gate file that lie in OUT_DIR; its
//       deadline grows by the factor SLOW (more than 1 in sanitizer builds)
#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/digest.h"
#include "base/io/env.h"
#include "experts/finance/library/packed.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

template <class Packed>
Status pack(const SafetensorsFile& file, const std::string& name, int64_t outputs, int64_t inputs,
            Packed* out) {
  const TensorView* tensor = file.find(name);
  if (tensor == nullptr || tensor->dtype != DType::kBF16 ||
      tensor->shape != std::vector<int64_t>{outputs, inputs}) {
    return {Code::kInvalidArgument,
            name + ": found none of BF16 and the right shape (expected it)"};
  }
  const auto* values = reinterpret_cast<const uint16_t*>(tensor->bytes.data());
  for (int64_t i = 0; i < outputs; ++i) {
    float largest = 0.0f;
    for (int64_t j = 0; j < inputs; ++j) {
      largest = std::max(largest, std::abs(bf16_to_f32(values[i * inputs + j])));
    }
    const float scale = largest / 127.0f;
    out->scale[i] = scale;
    for (int64_t j = 0; j < inputs; ++j) {
      const float q =
          scale == 0.0f ? 0.0f : std::nearbyint(bf16_to_f32(values[i * inputs + j]) / scale);
      out->q[i / kFinanceTile][j][i % kFinanceTile] =
          static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
    }
  }
  return {};
}

Status write_weights(const std::string& dir, const std::string& blob, const std::string& gate) {
  const auto file = SafetensorsFile::open(dir + "/weights.safetensors", Residency::kMapped);
  if (!file.ok()) return file.status();
  std::vector<TensorView> rows;
  for (const TensorView& tensor : file->tensors()) {
    if (tensor.name.find(".gate.") != std::string::npos) rows.push_back(tensor);
  }
  CHIMERA_RETURN_IF_ERROR(write_safetensors(gate, rows, {}));
  auto layer = std::make_unique<FinanceLayer>();
  std::ofstream out(blob, std::ios::binary);
  for (int64_t l = 0; l < kFinanceLayers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".experts.0.";
    CHIMERA_RETURN_IF_ERROR(
        pack(*file, prefix + "gate_proj.weight", kFinanceWidth, kFinanceHidden, &layer->gate));
    CHIMERA_RETURN_IF_ERROR(
        pack(*file, prefix + "up_proj.weight", kFinanceWidth, kFinanceHidden, &layer->up));
    CHIMERA_RETURN_IF_ERROR(
        pack(*file, prefix + "down_proj.weight", kFinanceHidden, kFinanceWidth, &layer->down));
    out.write(reinterpret_cast<const char*>(layer.get()), sizeof(FinanceLayer));
  }
  if (!out.flush()) return {Code::kUnavailable, blob + ": could not be written"};
  return {};
}

constexpr int64_t kDeadlineMs = 2000;

Status write_manifest(const std::string& from, const std::string& dir, const std::string& library,
                      const std::string& isolation, int64_t slow) {
  Result<Manifest> m = read_manifest(from);
  if (!m.ok()) return m.status();
  m->kind = ModuleKind::kLibrary;
  m->description += "; int8, as a library";
  m->files.clear();
  for (const std::string& path : {library, std::string("gate.safetensors")}) {
    const Result<std::string> digest = sha256_of_file(dir + "/" + path);
    if (!digest.ok()) return digest.status();
    m->files.push_back({path, *digest});
  }
  LibrarySpec spec;
  spec.file = library;
  spec.id = "org.chimera.finance";
  spec.gate = "gate.safetensors";
  const auto where = kIsolationNames.find(isolation);
  if (!where) {
    return {Code::kInvalidArgument,
            "isolation: found " + isolation + " (expected " + kIsolationNames.choices() + ")"};
  }
  spec.isolation = *where;
  // Our own code, which does not hang; a shared machine may stop it for half a second.
  spec.deadline_ms = kDeadlineMs * slow;
  m->library = spec;
  return write_file_durably(Env::system(), dir + "/module.yaml", manifest_yaml(*m), 0644);
}

Status run(const std::vector<std::string>& args) {
  if (args.size() == 4 && args[0] == "weights") return write_weights(args[1], args[2], args[3]);
  if (args.size() == 6 && args[0] == "module") {
    return write_manifest(args[1], args[2], args[3], args[4], std::stoi(args[5]));
  }
  return {Code::kInvalidArgument, "found other arguments (expected weights or module)"};
}

}  // namespace
}  // namespace chimera

int main(int argc, char** argv) {
  const chimera::Status status = chimera::run({argv + 1, argv + argc});
  if (status.ok()) return 0;
  std::cerr << "finance-pack: " << status.to_string() << '\n';
  return 1;
}
