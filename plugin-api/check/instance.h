// An instance of the plugin through its life cycle, every call guarded; and batches for it.
//
// Thread safety: as the contract of the calls; a Batch belongs to one thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "check/guarded.h"
#include "check/host.h"
#include "check/plugin.h"

namespace chimera::check {

/// [rows, cols], row-major, dense.
struct Matrix {
  uint32_t rows = 0, cols = 0;
  std::vector<float> values;

  const float* row(uint32_t r) const { return values.data() + uint64_t{r} * cols; }
  float* row(uint32_t r) { return values.data() + uint64_t{r} * cols; }
};

/// A call of forward.
struct Shape {
  uint32_t layer = 0, expert = 0;
  uint32_t workers = 1;
  uint64_t x_padding = 0, y_padding = 0;  // bytes added to the least strides, multiples of 64
  Flush flush = Flush::kEnd;
  uint32_t fill = 0x7fa5a5a5;  // bits of y before the call: a NaN
  const uint32_t* cancel = nullptr;
  uint64_t deadline_ns = 0;
  bool row_epochs = true;  // different ones; false: the rows are on no table
};

/// "layer 0 expert 1", for messages.
std::string place(const Shape& shape);

struct Outcome {
  int32_t status = CHIMERA_OK;
  Matrix y;
};

class Instance {
 public:
  Instance(Plugin& plugin, Host& host) : plugin_(plugin), host_(host) {}
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  /// False when the plugin gave null.
  bool create();
  int32_t prepare(std::string_view config);
  /// prepare with the configuration of the module.
  int32_t prepare();
  int32_t activate(uint32_t max_rows, uint32_t workers = 4, uint32_t concurrent = 1);
  int32_t reset();
  void deactivate();
  void destroy();
  /// create, prepare, activate. Skips the case on failure; case 26 fails.
  Problem start(uint32_t max_rows, uint32_t workers = 4, uint32_t concurrent = 1);

  int32_t forward(const chimera_expert_batch* batch);
  /// forward on rows in guarded memory of their own, x and batch read-only, all of it revoked or
  /// gone afterwards.
  Outcome run(const Matrix& x, const Shape& shape);

  chimera_expert* abi() const { return self_; }
  bool active() const { return active_; }
  /// Whether a forward came back with another rounding, flushing or masking of the FPU.
  bool fp_changed() const { return fp_changed_; }
  Plugin& plugin() const { return plugin_; }
  Host& host() const { return host_; }

 private:
  Plugin& plugin_;
  Host& host_;
  chimera_expert* self_ = nullptr;
  bool active_ = false;
  std::atomic<bool> fp_changed_{false};
};

/// Guarded memory of one forward call.
class Batch {
 public:
  Batch(const chimera_expert_descriptor& descriptor, const Matrix& x, const Shape& shape);

  const chimera_expert_batch* abi() const {
    return reinterpret_cast<const chimera_expert_batch*>(batch_.data());
  }
  /// Makes x and the batch itself read-only.
  void seal();
  void revoke();
  Matrix y() const;
  /// Fills what lies before each worker's scratch memory with a pattern; whether it is still there.
  void mark_scratch();
  bool scratch_mark_intact() const;

 private:
  const uint64_t* epochs() const { return reinterpret_cast<const uint64_t*>(epochs_.data()); }

  uint32_t rows_, cols_;
  uint64_t x_stride_, y_stride_;
  uint64_t scratch_part_ = 0, scratch_slack_ = 0;
  Guarded x_, y_, epochs_, batch_;
  std::unique_ptr<Guarded> scratch_;
};

/// Rows of normally distributed values times `scale`.
Matrix random_rows(Context& context, uint32_t rows, uint32_t cols, float scale = 1.0f);
/// The rows begin … begin+count-1.
Matrix slice(const Matrix& m, uint32_t begin, uint32_t count);

/// Rows that a test of this plugin uses: at most `wanted`, at most what the plugin takes, at most
/// 8 MiB of input.
uint32_t usable_rows(const chimera_expert_descriptor& descriptor, uint32_t wanted);

/// Whether outputs agree: to the bit when the plugin declares it, else up to rounding. A text that
/// says where they do not.
std::string difference(const chimera_expert_descriptor& descriptor, const Matrix& a,
                       const Matrix& b);

/// Some (layer, expert) pairs: the first and the last, at levels above gate all of up to 16.
std::vector<Shape> some_experts(const Context& context,
                                const chimera_expert_descriptor& descriptor);

/// "status 3 (already_exists)" with the text of error/1, if any.
std::string status_text(int32_t status, const Host& host);

uint64_t monotonic_ns();

}  // namespace chimera::check
