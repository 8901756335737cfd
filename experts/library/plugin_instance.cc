#include "experts/library/plugin_instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "chimera/draft/residency.h"
#include "experts/library/process_state.h"

namespace chimera {
namespace {

constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::string text_of(const chimera_text& text) {
  return text.size == 0 ? std::string() : std::string(text.data_borrowed, text.size);
}

LibraryInfo info_of(const chimera_expert_descriptor& d, const chimera_expert_entry& entry,
                    const ElfNote& note) {
  LibraryInfo info;
  info.id = d.id_borrowed;
  info.version = text_of(d.version);
  info.vendor = text_of(d.vendor);
  info.build = note.build.empty() ? note.gnu_build_id : note.build;
  info.abi = fmt::format("{}.{}", entry.abi_major, entry.abi_minor);
  info.bitwise = d.determinism == CHIMERA_DETERMINISM_BITWISE;
  info.reentrant = d.concurrency == CHIMERA_CONCURRENCY_REENTRANT;
  info.unload_clean = (entry.flags & CHIMERA_ENTRY_UNLOAD_CLEAN) != 0 && note.unique_symbols == 0;
  info.max_rows = d.max_rows;
  return info;
}

/// The one that all rows are on, else 0.
uint64_t common_epoch(const uint64_t* epochs, uint32_t rows) {
  if (epochs == nullptr || rows == 0) return 0;
  const bool same = std::all_of(epochs, epochs + rows, [&](uint64_t e) { return e == epochs[0]; });
  return same ? epochs[0] : 0;
}

}  // namespace

PluginInstance::PluginInstance(const LibrarySource& source, LibraryRuntime& runtime)
    : label_("module " + source.module),
      id_(source.spec.id.empty() ? source.note.id : source.spec.id),
      config_(source.spec.config),
      tensors_(source.tensors),
      memory_limit_(static_cast<uint64_t>(source.spec.memory_mib) << 20),
      hidden_(static_cast<uint64_t>(source.hidden_size)),
      max_workers_(runtime.worker_count()) {
  for (const TensorView& tensor : tensors_) tensor_bytes_ += tensor.bytes.size();
  PluginHost::Options options;
  options.module = source.module;
  options.tensors = &tensors_;
  options.memory_limit = memory_limit_;
  options.runtime = &runtime;
  host_ = std::make_unique<PluginHost>(std::move(options));
}

Result<std::unique_ptr<PluginInstance>> PluginInstance::open(const PluginImage& image,
                                                             const LibrarySource& source,
                                                             LibraryRuntime& runtime) {
  std::unique_ptr<PluginInstance> instance(new PluginInstance(source, runtime));
  const chimera_expert_descriptor* descriptor = image.find(instance->id_);
  if (descriptor == nullptr) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("{}: found no plugin {} in {} (expected it)", instance->label_,
                              instance->id_, source.spec.file),
                  "Correct library.id in module.yaml.");
  }
  CHIMERA_RETURN_IF_ERROR(
      check_plugin_descriptor(*descriptor, source).with_context(instance->label_));
  instance->descriptor_ = descriptor;
  instance->info_ = info_of(*descriptor, image.entry(), source.note);
  instance->alignment_ = std::max<uint64_t>(CHIMERA_ALIGNMENT, descriptor->alignment);
  instance->scratch_stride_ = round_up(descriptor->scratch_bytes, instance->alignment_);
  CHIMERA_RETURN_IF_ERROR(instance->create(image));
  CHIMERA_RETURN_IF_ERROR(instance->activate(descriptor->max_rows));
  return instance;
}

Status PluginInstance::create(const PluginImage& image) {
  const ControlCallGuard guard;
  const PluginCallScope scope(*host_);
  expert_ = image.factory().create(id_.c_str(), host_->abi());
  if (expert_ == nullptr) {
    return {Code::kResourceExhausted,
            fmt::format("{}: create: found null (expected an instance)", label_)};
  }
  const chimera_expert& e = *expert_;
  const bool usable = e.struct_size >= sizeof(chimera_expert) && e.prepare && e.activate &&
                      e.forward && e.reset && e.deactivate && e.destroy && e.get_extension;
  if (!usable || e.descriptor_borrowed != descriptor_) {
    const bool may_destroy = e.struct_size >= sizeof(chimera_expert) && e.destroy != nullptr;
    if (!may_destroy) expert_ = nullptr;
    return {Code::kDataCorrupt,
            fmt::format("{}: create: found an instance that is too short, lacks functions or has "
                        "another descriptor (expected a whole one)",
                        label_)};
  }
  return {};
}

Status PluginInstance::activate(uint32_t max_rows) {
  const ControlCallGuard guard;
  {
    const PluginCallScope scope(*host_);
    const int32_t status = expert_->prepare(expert_, {config_.data(), config_.size()});
    CHIMERA_RETURN_IF_ERROR(failed(scope.status(status, label_ + ": prepare")));
  }
  chimera_expert_limits limits{};
  limits.struct_size = sizeof(limits);
  limits.max_rows = max_rows;
  limits.worker_count = max_workers_;
  // The engine and a probe beside it.
  limits.max_concurrent = info_.reentrant ? 2 : 1;
  limits.memory_bytes = memory_limit_;
  {
    const PluginCallScope scope(*host_);
    const int32_t status = expert_->activate(expert_, &limits);
    CHIMERA_RETURN_IF_ERROR(failed(scope.status(status, label_ + ": activate")));
    active_ = true;
  }
  const PluginCallScope scope(*host_);
  const auto* residency = static_cast<const chimera_expert_residency*>(
      expert_->get_extension(expert_, CHIMERA_RESIDENCY_DRAFT_ID));
  if (residency != nullptr && residency->struct_size >= sizeof(*residency) &&
      residency->resident_bytes != nullptr) {
    own_bytes_ = residency->resident_bytes(expert_);
  }
  return {};
}

PluginInstance::~PluginInstance() {
  if (expert_ == nullptr) return;
  const ControlCallGuard guard;
  const PluginCallScope scope(*host_);
  if (active_) expert_->deactivate(expert_);
  expert_->destroy(expert_);
}

uint64_t PluginInstance::row_stride() const {
  return round_up(hidden_ * sizeof(float), CHIMERA_ALIGNMENT);
}

uint64_t PluginInstance::workers(int threads) const {
  return std::clamp<uint64_t>(static_cast<uint64_t>(threads), 1, max_workers_);
}

Status PluginInstance::failed(Status status) {
  if (status.code() == Code::kInternal) poisoned_.store(true);
  return status;
}

Status PluginInstance::forward(int64_t layer, int64_t expert, const PluginRows& rows,
                               const PluginCompute& compute) {
  if (poisoned()) {
    return {Code::kFailedPrecondition,
            label_ +
                ": found a plugin that reported an internal error before (expected a sound "
                "one)",
            "Load the module again."};
  }
  chimera_expert_batch batch{};
  batch.struct_size = sizeof(batch);
  batch.layer = static_cast<uint32_t>(layer);
  batch.expert = static_cast<uint32_t>(expert);
  batch.n_rows = rows.rows;
  batch.x_borrowed = rows.x;
  batch.y_borrowed = rows.y;
  batch.x_stride = rows.x_stride;
  batch.y_stride = rows.y_stride;
  batch.input_dtype = CHIMERA_DTYPE_F32;
  batch.output_dtype = CHIMERA_DTYPE_F32;
  batch.worker_count = static_cast<uint32_t>(workers(compute.pool->threads()));
  batch.scratch_borrowed = compute.scratch;
  batch.scratch_size = scratch_stride_;
  batch.scratch_stride = scratch_stride_;
  batch.deadline_ns = compute.deadline_ns;
  batch.cancel_borrowed = compute.cancel;
  batch.epoch = common_epoch(compute.row_epochs, rows.rows);
  batch.row_epochs_borrowed = compute.row_epochs;

  MovableMutexLock one(serial_, std::defer_lock);
  if (!info_.reentrant) one.lock();
  const FloatingPointGuard fp;
  const PluginCallScope scope(*host_, *compute.pool, batch.worker_count);
  const int32_t status = expert_->forward(expert_, &batch);
  if (status == CHIMERA_OK) return {};
  return failed(scope.status(status, fmt::format("plugin {}", id_)));
}

Status PluginInstance::reset() {
  const ControlCallGuard guard;
  const PluginCallScope scope(*host_);
  return failed(scope.status(expert_->reset(expert_), label_ + ": reset"));
}

}  // namespace chimera
