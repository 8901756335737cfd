// open_in_process: the plugin inside this process, for trusted code.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/steady_time.h"
#include "base/threads/background.h"
#include "base/threads/mutex.h"
#include "base/threads/progress.h"
#include "base/threads/repeater.h"
#include "experts/library/backend.h"
#include "experts/library/crash_record.h"
#include "experts/library/loading_turn.h"
#include "experts/library/plugin_image.h"
#include "experts/library/plugin_instance.h"
#include "experts/library/quarantine.h"

namespace chimera {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) &&
                  std::atomic<uint32_t>::is_always_lock_free,
              "a cancel flag is read by plugins as a plain uint32_t");

double ms(uint64_t ns) { return static_cast<double>(ns) / 1e6; }

class InProcessBackend final : public LibraryBackend {
 public:
  InProcessBackend(LibrarySource source, std::shared_ptr<LibraryRuntime> runtime)
      : module_(source.module),
        note_(source.note),
        label_(fmt::format("plugin {}", source.note.id)),
        hidden_(source.hidden_size),
        limit_ns_(static_cast<uint64_t>(source.spec.deadline_ms) * 1'000'000),
        runtime_(std::move(runtime)) {}

  Status open(const LibrarySource& source) {
    CHIMERA_RETURN_IF_ERROR(prepare_record(source));
    const auto turn = LoadingTurn::take(module_, runtime_->options().ceilings.load);
    if (!turn.ok()) return turn.status();
    Repeater overdue("chimera-overdue", runtime_->options().ceilings.load,
                     [this] { return tell_overdue(); });
    overdue.begin();
    const MutexLock control(runtime_->control());
    const CrashScope scope(record_.get(), "while it was loaded");
    Result<std::unique_ptr<PluginImage>> image = PluginImage::load(source, *runtime_);
    if (!image.ok()) return image.status();
    Result<std::unique_ptr<PluginInstance>> instance =
        PluginInstance::open(**image, source, *runtime_);
    if (!instance.ok()) return instance.status();
    image_ = std::move(*image);
    instance_ = std::move(*instance);
    return {};
  }

  ~InProcessBackend() override {
    if (image_ == nullptr) return;     // it was not loaded
    const ProgressScope own(nullptr);  // whoever lets go of it last may have been given up
    const auto turn = LoadingTurn::take(module_, runtime_->options().ceilings.load);
    if (!turn.ok()) {
      leave_behind(turn.status().message());
      return;
    }
    const MutexLock control(runtime_->control());
    const CrashScope scope(record_.get(), "while it was retired");
    instance_.reset();
    image_.reset();
  }

  Isolation isolation() const override { return Isolation::kInProcess; }
  const LibraryInfo& info() const override { return instance_->info(); }

  LibraryStatus status() const override {
    LibraryStatus status;
    status.state = instance_->poisoned() ? LibraryState::kPoisoned : LibraryState::kActive;
    status.calls = calls_.load();
    status.failures = failures_.load();
    status.counters = instance_->counters();
    const MutexLock guard(mutex_);
    status.last_error = last_error_;
    return status;
  }

  uint64_t resident_bytes() const override {
    return image_->mapped_bytes() + instance_->resident_bytes();
  }

  Status forward(int64_t layer, int64_t expert, const float* x, int64_t rows, float* y,
                 ExpertContext& ctx) override {
    calls_.fetch_add(1, std::memory_order_relaxed);
    Status status = run(layer, expert, x, rows, y, ctx);
    if (status.ok()) return status;
    if (gave_up_in_vain(status, ctx)) {
      return {Code::kDeadlineExceeded, "given up: the deadlines of all its rows had passed"};
    }
    note_failure(status);
    return status;
  }

 private:
  struct Buffers {
    std::byte *x, *y, *scratch;
  };

  bool tell_overdue() const {
    runtime_->log(LibraryRuntime::Severity::kError, module_,
                  fmt::format("is not loaded after {} ms (libraries.max_load_ms) and, inside the "
                              "daemon, cannot be ended: restart the daemon without it to load "
                              "others there",
                              runtime_->options().ceilings.load.count()));
    return true;
  }

  /// Of one that cannot be retired, as another call does not come back: it stays, with all that
  /// threads of its own may still reach.
  void leave_behind(const std::string& reason) {
    runtime_->count_kept({module_, note_.version, note_.id, image_->mapped_bytes(), reason});
    (void)instance_.release();
    (void)image_.release();
    (void)record_.release();
    (void)new std::shared_ptr<LibraryRuntime>(runtime_);
  }

  /// Where something is remembered, what ended this process before is not started again.
  Status prepare_record(const LibrarySource& source) {
    const std::string& state = runtime_->options().state_dir;
    if (state.empty()) return {};
    const Result<std::string> key = library_key(source);
    if (!key.ok()) return key.status();
    CHIMERA_RETURN_IF_ERROR(Quarantine(state).check(*key, source.module));
    record_ = std::make_unique<const CrashRecord>(source, *key, state);
    return {};
  }

  Status run(int64_t layer, int64_t expert, const float* x, int64_t rows, float* y,
             ExpertContext& ctx) {
    const CrashScope scope(record_.get(), "in a forward call",
                           ctx.row_epochs == nullptr ? 0 : ctx.row_epochs[0]);
    const int64_t most = std::min(rows, info().max_rows);
    const BackgroundScope foreground(false);  // rests would count against the deadline
    const uint64_t started = steady_now_ns();
    uint64_t limit = started + limit_ns_;
    if (ctx.limit_ns != 0) limit = std::min(limit, ctx.limit_ns);
    const uint64_t deadline = ctx.deadline_ns != 0 ? std::min(limit, ctx.deadline_ns) : limit;
    const Buffers buffers = lend(most, ctx);
    PluginCompute compute{&ctx.pool, buffers.scratch, deadline,
                          reinterpret_cast<const uint32_t*>(ctx.cancel), nullptr};
    for (int64_t at = 0; at < rows; at += most) {
      const int64_t n = std::min(most, rows - at);
      if (ctx.row_epochs != nullptr) compute.row_epochs = ctx.row_epochs + at;
      CHIMERA_RETURN_IF_ERROR(
          run_part(layer, expert, x + at * hidden_, n, y + at * hidden_, buffers, compute));
    }
    const uint64_t ended = steady_now_ns();
    // Computed, and by the plugin's own measure in time: whether anybody still wants it is not its
    // business.
    if (ended <= limit) return {};
    return {Code::kDeadlineExceeded,
            fmt::format("{}: ended {:.1f} ms past its deadline, having taken {:.1f} ms itself "
                        "(expected at most {} ms from hand-over to end)",
                        label_, ms(ended - limit), ms(ended - started), limit_ns_ / 1'000'000),
            "Raise library.deadline_ms, or run it with isolation: process."};
  }

  /// Told that nobody waits for its rows, the plugin gave up: no failure of its own.
  static bool gave_up_in_vain(const Status& status, const ExpertContext& ctx) {
    return (status.code() == Code::kDeadlineExceeded || status.code() == Code::kCancelled) &&
           ctx.deadline_ns != 0 && steady_now_ns() >= ctx.deadline_ns;
  }

  /// Aligned room for rows and scratch inside ctx.scratch.
  Buffers lend(int64_t rows, ExpertContext& ctx) const {
    const uint64_t alignment = instance_->alignment();
    const auto up = [&](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
    const uint64_t block = up(static_cast<uint64_t>(rows) * instance_->row_stride());
    const uint64_t total = 2 * block + instance_->scratch_bytes(ctx.pool.threads()) + alignment;
    if (ctx.scratch.size() < total / sizeof(float) + 1) {
      ctx.scratch.resize(total / sizeof(float) + 1);
    }
    auto* base = reinterpret_cast<std::byte*>(up(reinterpret_cast<uintptr_t>(ctx.scratch.data())));
    return {base, base + block, base + 2 * block};
  }

  Status run_part(int64_t layer, int64_t expert, const float* x, int64_t rows, float* y,
                  const Buffers& buffers, const PluginCompute& compute) {
    const uint64_t stride = instance_->row_stride();
    const uint64_t width = static_cast<uint64_t>(hidden_) * sizeof(float);
    const auto n = static_cast<uint64_t>(rows);
    PluginRows part{x, y, stride, stride, static_cast<uint32_t>(rows)};
    const auto aligned = [&](const void* p) {
      return stride == width && reinterpret_cast<uintptr_t>(p) % instance_->alignment() == 0;
    };
    if (!aligned(x)) {
      for (uint64_t r = 0; r < n; ++r) {
        std::memcpy(buffers.x + r * stride, x + r * static_cast<uint64_t>(hidden_), width);
        std::memset(buffers.x + r * stride + width, 0, stride - width);
      }
      part.x = buffers.x;
    }
    if (!aligned(y)) part.y = buffers.y;
    CHIMERA_RETURN_IF_ERROR(instance_->forward(layer, expert, part, compute));
    if (part.y == y) return {};
    for (uint64_t r = 0; r < n; ++r) {
      std::memcpy(y + r * static_cast<uint64_t>(hidden_), buffers.y + r * stride, width);
    }
    return {};
  }

  void note_failure(const Status& status) {
    failures_.fetch_add(1, std::memory_order_relaxed);
    const MutexLock guard(mutex_);
    last_error_ = status.message();
  }

  const std::string module_;
  const ElfNote note_;
  const std::string label_;
  const int64_t hidden_;
  const uint64_t limit_ns_;
  const std::shared_ptr<LibraryRuntime> runtime_;
  std::unique_ptr<const CrashRecord> record_;  // null: nothing is remembered
  std::unique_ptr<PluginImage> image_;
  std::unique_ptr<PluginInstance> instance_;
  std::atomic<uint64_t> calls_{0}, failures_{0};
  mutable Mutex mutex_;
  std::string last_error_ GUARDED_BY(mutex_);
};

}  // namespace

Result<std::shared_ptr<LibraryBackend>> open_in_process(LibrarySource source,
                                                        std::shared_ptr<LibraryRuntime> runtime) {
  if (!runtime->options().allow_in_process) {
    return Status(Code::kPermissionDenied,
                  fmt::format("module {}: found isolation in-process (expected process: this "
                              "deployment runs no plugin code in the daemon)",
                              source.module),
                  "Set libraries.in_process: allow in the deployment if the code is trusted.");
  }
  auto backend = std::make_shared<InProcessBackend>(source, std::move(runtime));
  CHIMERA_RETURN_IF_ERROR(backend->open(source));
  return std::shared_ptr<LibraryBackend>(std::move(backend));
}

}  // namespace chimera
