#include "experts/assembly/in_memory.h"

#include <algorithm>
#include <map>
#include <new>

#include "base/io/mapping_guard.h"
#include "base/threads/background.h"
#include "base/threads/progress.h"
#include "experts/assembly/assembler.h"
#include "experts/assembly/misfits.h"

namespace chimera {
namespace {

// Of the kernels' widest vectors, and of cache lines.
constexpr std::align_val_t kAlignment{64};
// Parents above this are not kept resident between measuring and merging, bytes: two passes over
// a matrix this large find it in the page cache, not in the mapping.
constexpr uint64_t kReleaseAbove = uint64_t{64} << 20;

std::shared_ptr<std::byte> allocate(uint64_t bytes) {
  auto* memory = static_cast<std::byte*>(
      ::operator new(std::max<uint64_t>(bytes, 1), kAlignment, std::nothrow));
  return {memory, [](std::byte* at) { ::operator delete(at, kAlignment); }};
}

/// Modules are made of whole tensors (layout.cc).
size_t source_of(const OutputTensor& output) { return output.slices.front().pieces.front().tensor; }

TensorView header_of(const OutputTensor& output) {
  TensorView view;
  view.name = output.name;
  view.dtype = output.dtype;
  view.shape = output.shape;
  view.bytes = {static_cast<const std::byte*>(nullptr), output.bytes};
  return view;
}

class MemoryAssembly {
 public:
  explicit MemoryAssembly(const AssemblyPlan& plan)
      : plan_(plan), assembler_(plan, pool_, kReleaseAbove) {}

  Result<std::vector<TensorView>> run() {
    const auto& outputs = plan_.outputs;
    for (size_t i = 0; i < outputs.size() && !misfits_.full();) {
      size_t end = i + 1;
      while (outputs[i].group >= 0 && end < outputs.size() &&
             outputs[end].group == outputs[i].group)
        ++end;
      CHIMERA_RETURN_IF_ERROR(add_group(i, end));
      i = end;
    }
    if (mapping_damaged()) {
      return Status(Code::kDataCorrupt,
                    damaged_mapping() +
                        ": became shorter while it was read (expected parents that "
                        "stay as they are)");
    }
    if (!misfits_.empty()) {
      return misfits_.status(Code::kDataCorrupt, plan_.recipe.label + ": cannot be assembled",
                             "Export the parents that hold these again.");
    }
    return std::move(tensors_);
  }

 private:
  /// Tensors that stand or fall together: those of one expert, or one alone.
  Status add_group(size_t begin, size_t end) {
    std::vector<Measured> measured;
    bool merged = false;
    for (size_t i = begin; i < end; ++i) {
      measured.push_back(assembler_.measure(plan_.tensors[source_of(plan_.outputs[i])]));
      merged = merged || measured.back().merged;
    }
    if (plan_.only_differences() && !merged) return {};
    for (size_t i = begin; i < end; ++i) {
      CHIMERA_RETURN_IF_ERROR(add(plan_.outputs[i], measured[i - begin]));
    }
    return {};
  }

  Status add(const OutputTensor& output, const Measured& measured) {
    const PlannedTensor& tensor = plan_.tensors[source_of(output)];
    const std::shared_ptr<std::byte> memory = allocate(output.bytes);
    if (memory == nullptr) {
      return {Code::kResourceExhausted,
              fmt::format("tensor {}: found no memory for {} bytes (expected some)", output.name,
                          output.bytes)};
    }
    const TensorData& base = tensor.base();
    const uint64_t row_bytes = static_cast<uint64_t>(base.cols()) * unit_bytes(output.dtype);
    const int64_t step = chunk_rows(base);
    for (int64_t row = 0; row < base.rows(); row += step) {
      const int64_t end = std::min(base.rows(), row + step);
      const Status computed =
          assembler_.rows(tensor, measured, row, end,
                          memory.get() + static_cast<uint64_t>(row) * row_bytes, scratch_);
      uint64_t read = 0;
      for (const TensorData* data : tensor.parents) {
        read += data->stored_bytes(end - row);
        data->release(row, end);
      }
      note_progress(read);
      if (work_given_up()) return {Code::kCancelled, output.name + ": found it given up"};
      give_way();
      if (computed.ok()) continue;
      misfits_.add(computed.message());
      return {};  // more of them are looked for
    }
    TensorView view = header_of(output);
    view.bytes = {memory.get(), output.bytes};
    view.owner = memory;
    tensors_.push_back(std::move(view));
    return {};
  }

  const AssemblyPlan& plan_;
  // No further threads: this one is in the background, others would not be.
  ThreadPool pool_{1};
  const Assembler assembler_;
  AssemblyScratch scratch_;
  std::vector<TensorView> tensors_;
  Misfits misfits_;
};

}  // namespace

std::vector<TensorView> planned_tensors(const AssemblyPlan& plan) {
  std::vector<TensorView> out;
  for (const OutputTensor& output : plan.outputs) out.push_back(header_of(output));
  return out;
}

Result<std::vector<TensorView>> assemble_tensors(const AssemblyPlan& plan) {
  return MemoryAssembly(plan).run();
}

}  // namespace chimera
