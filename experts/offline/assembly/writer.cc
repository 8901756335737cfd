#include "experts/offline/assembly/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <filesystem>
#include <map>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/mapping_guard.h"
#include "base/threads/mutex.h"
#include "experts/assembly/assembler.h"
#include "experts/assembly/misfits.h"
#include "experts/offline/assembly/shard_file.h"

namespace chimera {
namespace {

const std::map<std::string, std::string> kMetadata{{"format", "pt"}};

// Of the memory: what one measured tensor may keep mapped until it is written. The three matrices
// of an expert are measured together, beside a window of a quarter.
constexpr uint64_t kMeasuredPart = 16;

/// Part of a slice that one thread computes and writes.
struct Task {
  const OutputSlice* slice = nullptr;
  const OutputPiece* piece = nullptr;  // null: all pieces of the slice together
  int64_t begin = 0, end = 0;          // rows of the piece
  uint64_t offset = 0;                 // in the file's data
  uint64_t bytes = 0;                  // read
  DType dtype = DType::kF32;
};

class ShardWriter {
 public:
  ShardWriter(const AssemblyPlan& plan, ThreadPool& pool, const WriteOptions& options,
              uint64_t& done)
      : plan_(plan),
        pool_(pool),
        options_(options),
        done_(done),
        window_(options.memory / 4),
        assembler_(plan, pool, options.memory / kMeasuredPart) {}

  Result<WrittenShard> run(const std::vector<size_t>& outputs, const std::string& dir,
                           const std::string& name) {
    Result<std::string> longest = header(outputs);
    if (!longest.ok()) return longest.status();
    Result<ShardFile> file = ShardFile::create(*options_.env, dir + "/" + name, longest->size());
    if (!file.ok()) return file.status();
    file_ = &*file;
    for (size_t i = 0; i < outputs.size() && !stopped_;) {
      size_t end = i + 1;
      const int64_t group = plan_.outputs[outputs[i]].group;
      while (group >= 0 && end < outputs.size() && plan_.outputs[outputs[end]].group == group)
        ++end;
      CHIMERA_RETURN_IF_ERROR(add_group(outputs, i, end));
      i = end;
    }
    CHIMERA_RETURN_IF_ERROR(flush(0));
    if (mapping_damaged()) {
      return Status(Code::kDataCorrupt,
                    damaged_mapping() +
                        ": became shorter while it was read (expected parents that "
                        "stay as they are)");
    }
    if (!misfits_.empty()) {
      return misfits_.status(Code::kDataCorrupt, plan_.recipe.label + ": nothing was written",
                             "Export the parents that hold these again.");
    }
    Result<std::string> text = header(included_);
    if (!text.ok()) return text.status();
    CHIMERA_RETURN_IF_ERROR(file->finish(*text));
    WrittenShard out{name, {}};
    for (const size_t index : included_) out.tensors.push_back(plan_.outputs[index].name);
    return out;
  }

 private:
  Result<std::string> header(const std::vector<size_t>& outputs) const {
    std::vector<TensorView> views;
    for (const size_t index : outputs) {
      const OutputTensor& tensor = plan_.outputs[index];
      TensorView view;
      view.name = tensor.name;
      view.dtype = tensor.dtype;
      view.shape = tensor.shape;
      view.bytes = {static_cast<const std::byte*>(nullptr), tensor.bytes};
      views.push_back(std::move(view));
    }
    return safetensors_header(plan_.recipe.label, views, kMetadata);
  }

  const Measured& measured(size_t tensor) {
    const auto known = measured_.find(tensor);
    if (known != measured_.end()) return known->second;
    const PlannedTensor& planned = plan_.tensors[tensor];
    Measured found = assembler_.measure(planned);
    if (!found.merged) {  // the other parents are not looked at again
      for (const TensorData* data : planned.parents) data->release(0, data->rows());
    }
    return measured_.emplace(tensor, std::move(found)).first->second;
  }

  /// Tensors that stand or fall together: those of one expert, or one alone.
  Status add_group(const std::vector<size_t>& outputs, size_t begin, size_t end) {
    if (plan_.only_differences()) {
      bool merged = false;
      for (size_t i = begin; i < end; ++i) {
        for (const OutputSlice& slice : plan_.outputs[outputs[i]].slices) {
          for (const OutputPiece& piece : slice.pieces) {
            merged = measured(piece.tensor).merged || merged;
          }
        }
      }
      if (!merged) return {};
    }
    for (size_t i = begin; i < end; ++i) {
      included_.push_back(outputs[i]);
      const OutputTensor& tensor = plan_.outputs[outputs[i]];
      for (const OutputSlice& slice : tensor.slices) {
        CHIMERA_RETURN_IF_ERROR(add_slice(tensor, slice));
      }
      offset_ += tensor.bytes;
    }
    return {};
  }

  Status add_slice(const OutputTensor& tensor, const OutputSlice& slice) {
    const bool dense = std::all_of(slice.pieces.begin(), slice.pieces.end(),
                                   [](const OutputPiece& piece) { return piece.dense(); });
    if (!dense) {
      Task task{&slice, nullptr, 0, 0, offset_ + slice.offset, 0, tensor.dtype};
      for (const OutputPiece& piece : slice.pieces) {
        measured(piece.tensor);
        task.bytes += input_bytes(piece, 0, plan_.tensors[piece.tensor].base().rows());
      }
      return add(task);
    }
    for (const OutputPiece& piece : slice.pieces) {
      measured(piece.tensor);
      const TensorData& base = plan_.tensors[piece.tensor].base();
      const int64_t step = chunk_rows(base);
      const uint64_t row_bytes = static_cast<uint64_t>(base.cols()) * unit_bytes(tensor.dtype);
      const uint64_t begin = offset_ + slice.offset +
                             static_cast<uint64_t>(piece.at.offset) * unit_bytes(tensor.dtype);
      for (int64_t row = 0; row < base.rows(); row += step) {
        const int64_t end = std::min(base.rows(), row + step);
        CHIMERA_RETURN_IF_ERROR(
            add({&slice, &piece, row, end, begin + static_cast<uint64_t>(row) * row_bytes,
                 input_bytes(piece, row, end), tensor.dtype}));
      }
    }
    return {};
  }

  template <class Use>
  void each_source(const OutputPiece& piece, Use use) {
    const PlannedTensor& tensor = plan_.tensors[piece.tensor];
    use(tensor.base());
    if (!measured_.at(piece.tensor).merged) return;
    for (size_t p = 1; p < tensor.parents.size(); ++p) use(*tensor.parents[p]);
  }

  uint64_t input_bytes(const OutputPiece& piece, int64_t begin, int64_t end) {
    uint64_t bytes = 0;
    each_source(piece, [&](const TensorData& data) { bytes += data.stored_bytes(end - begin); });
    return bytes;
  }

  Status add(const Task& task) {
    each_piece(task, [&](const OutputPiece& piece, int64_t begin, int64_t end) {
      each_source(piece, [&](const TensorData& data) { data.prefetch(begin, end); });
    });
    pending_.push_back(task);
    pending_bytes_ += task.bytes;
    // Half of the window is worked on while the system reads the other half.
    return pending_bytes_ > window_ ? flush(window_ / 2) : Status();
  }

  template <class Use>
  void each_piece(const Task& task, Use use) {
    if (task.piece != nullptr) return use(*task.piece, task.begin, task.end);
    for (const OutputPiece& piece : task.slice->pieces) {
      use(piece, 0, plan_.tensors[piece.tensor].base().rows());
    }
  }

  /// Works until at most `leave` bytes are pending.
  Status flush(uint64_t leave) {
    std::vector<Task> tasks;
    while (!pending_.empty() && (pending_bytes_ > leave || leave == 0)) {
      tasks.push_back(pending_.front());
      pending_bytes_ -= pending_.front().bytes;
      pending_.pop_front();
    }
    pool_.parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
      AssemblyScratch scratch;
      for (int64_t i = begin; i < end; ++i) run_task(tasks[static_cast<size_t>(i)], scratch);
    });
    for (const Task& task : tasks) done_ += task.bytes + written(task);
    if (options_.progress) options_.progress(done_);
    const MutexLock lock(mutex_);
    return misfits_.full() ? Status() : failure_;
  }

  uint64_t written(const Task& task) const {
    if (task.piece == nullptr) return task.slice->bytes;
    return static_cast<uint64_t>((task.end - task.begin) * task.piece->at.cols) *
           unit_bytes(task.dtype);
  }

  void run_task(const Task& task, AssemblyScratch& scratch) {
    if (stopped_.load(std::memory_order_relaxed)) return;
    std::vector<std::byte> out(written(task));
    const Status computed = task.piece != nullptr
                                ? compute(*task.piece, task.begin, task.end, out.data(), scratch)
                                : compute_slice(task, out.data(), scratch);
    each_piece(task, [&](const OutputPiece& piece, int64_t begin, int64_t end) {
      each_source(piece, [&](const TensorData& data) { data.release(begin, end); });
    });
    if (!computed.ok() || bad_.load(std::memory_order_relaxed)) return;
    const Status status = file_->write(task.offset, out);
    if (status.ok()) return;
    const MutexLock lock(mutex_);
    failure_ = status;
    stopped_ = true;
  }

  Status compute(const OutputPiece& piece, int64_t begin, int64_t end, std::byte* out,
                 AssemblyScratch& scratch) {
    Status status = assembler_.rows(plan_.tensors[piece.tensor], measured_.at(piece.tensor), begin,
                                    end, out, scratch);
    if (!status.ok()) note(piece.tensor, status);
    return status;
  }

  /// A slice whose pieces are interleaved or transposed.
  Status compute_slice(const Task& task, std::byte* out, AssemblyScratch& scratch) {
    for (const OutputPiece& piece : task.slice->pieces) {
      const TensorData& base = plan_.tensors[piece.tensor].base();
      const int64_t step = chunk_rows(base);
      for (int64_t row = 0; row < base.rows(); row += step) {
        const int64_t end = std::min(base.rows(), row + step);
        TensorView rows;
        rows.dtype = task.dtype;
        scratch.dense.resize(static_cast<size_t>((end - row) * base.cols()) *
                             unit_bytes(task.dtype));
        CHIMERA_RETURN_IF_ERROR(compute(piece, row, end, scratch.dense.data(), scratch));
        rows.bytes = scratch.dense;
        Strides at = piece.at;
        at.rows = end - row;
        at.offset += row * at.row_step;
        scatter(rows, at, out);
      }
    }
    return {};
  }

  /// Once per tensor; the work goes on, without writing, until enough is named.
  void note(size_t tensor, const Status& status) {
    const MutexLock lock(mutex_);
    bad_ = true;
    if (named_.insert(tensor).second) misfits_.add(status.message());
    if (misfits_.full()) stopped_ = true;
  }

  const AssemblyPlan& plan_;
  ThreadPool& pool_;
  const WriteOptions& options_;
  uint64_t& done_;
  const uint64_t window_;
  const Assembler assembler_;
  ShardFile* file_ = nullptr;
  uint64_t offset_ = 0;  // of the next tensor in the file's data
  std::vector<size_t> included_;
  std::map<size_t, Measured> measured_;  // changes between flushes only
  std::deque<Task> pending_;
  uint64_t pending_bytes_ = 0;
  std::atomic<bool> bad_ = false, stopped_ = false;
  Mutex mutex_;
  Status failure_ GUARDED_BY(mutex_);
  Misfits misfits_;  // under mutex_ while threads work
  std::set<size_t> named_;
};

std::string shard_name(const AssemblyPlan& plan, size_t i) {
  const std::string stem = plan.module_output() ? "weights" : "model";
  if (plan.shards.size() == 1) return stem + ".safetensors";
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, plan.shards.size());
}

}  // namespace

Result<std::vector<WrittenShard>> write_shards(const AssemblyPlan& plan, const std::string& dir,
                                               ThreadPool& pool, const WriteOptions& options) {
  std::vector<WrittenShard> out;
  uint64_t done = 0;
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    const std::string name = shard_name(plan, i);
    std::error_code error;
    if (std::filesystem::exists(dir + "/" + name, error)) {  // of the run that was interrupted
      const auto file = SafetensorsFile::open(dir + "/" + name, Residency::kMapped);
      if (!file.ok()) return file.status();
      WrittenShard shard{name, {}};
      for (const TensorView& tensor : file->tensors()) shard.tensors.push_back(tensor.name);
      done += file->file_bytes();
      out.push_back(std::move(shard));
      continue;
    }
    Result<WrittenShard> shard =
        ShardWriter(plan, pool, options, done).run(plan.shards[i], dir, name);
    if (!shard.ok()) return shard.status();
    out.push_back(std::move(*shard));
  }
  return out;
}

}  // namespace chimera
