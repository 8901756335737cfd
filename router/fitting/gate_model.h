// A backbone with one module in memory, through which texts are read: what its gates see, how
// likely the texts are, how much of them the module gets.
//
// Thread safety: none; by one thread, which owns a pool.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/kinds/module.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

struct RouteView;

/// Tokens that are read together, from the beginning of a text.
using TokenWindow = std::vector<int32_t>;

/// A text as windows, and the bytes that their predicted tokens account for.
struct WindowedText {
  std::vector<TokenWindow> windows;
  std::vector<int64_t> bytes;  // [windows]
};

/// What was found while windows were read.
struct GateReading {
  std::map<int64_t, std::vector<float>> inputs;  // by layer, if asked for: [tokens, hidden]
  double nats = 0;
  int64_t bytes = 0;
  double share = 0;  // of the module, 0 to 1

  double bits_per_byte() const;
};

class GateModel {
 public:
  /// Loads both. invalid_argument when the backbone has no tokenizer; unimplemented, by name, for
  /// gates that are no softmax and modules that do not append experts of weights.
  static Result<GateModel> open(const std::string& backbone_dir, const std::string& module_dir,
                                Precision precision, int threads);

  const ModelConfig& config() const { return backbone_->config(); }
  const Module& base() const { return *base_; }
  /// As it was loaded.
  const Module& module() const { return *module_; }

  /// At most `most` windows of the text, the first ones.
  Result<WindowedText> windows(const std::string& text, size_t most) const;

  /// What the backbone writes by itself, at temperature 1.
  Result<WindowedText> sample(size_t count, uint64_t seed);

  enum class Keep : uint8_t { kNothing, kInputs };
  /// With `module` in use, or with the backbone alone when it is null.
  Result<GateReading> read(const WindowedText& text, const std::shared_ptr<const Module>& module,
                           Keep keep);

 private:
  GateModel() = default;
  Result<std::vector<TokenWindow>> write_windows(const RouteView& view, size_t count,
                                                 std::mt19937_64& rng);

  std::shared_ptr<const Backbone> backbone_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const Module> base_, module_;
  std::string fingerprint_;
  std::optional<int32_t> prefix_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace chimera
