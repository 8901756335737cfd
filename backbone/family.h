// What a model family is: a config reader and a tensor-name map. Private to model_config.cc and
// the family_*.cc files; to add a family, write one such file and list it in family.cc.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/model_config.h"
#include "backbone/status.h"

namespace chimera {

/// Typed access to config.json that remembers the first error, so that a family reads all its keys
/// in one go and checks once. Absent and null keys take the class default of the family.
class ConfigReader {
 public:
  ConfigReader(std::string_view json, std::string_view label);
  ~ConfigReader();
  ConfigReader(const ConfigReader&) = delete;
  ConfigReader& operator=(const ConfigReader&) = delete;

  const Status& status() const { return status_; }
  void fail(Code code, std::string message, std::string hint = {});

  bool has(std::string_view key) const;  // present and not null
  std::string text(std::string_view key, std::string_view fallback);
  int64_t integer(std::string_view key, int64_t fallback, int64_t least, int64_t most);
  /// An integer that no class default can stand in for.
  int64_t required(std::string_view key, int64_t least, int64_t most);
  double number(std::string_view key, double fallback, double above, double most);
  /// true, false, or the integers 0 and 1 of older files.
  bool boolean(std::string_view key, bool fallback);
  /// One id, a list of ids, or none.
  std::vector<int32_t> ids(std::string_view key);

  /// Refuses the key unless it is absent, null, false, or one of the harmless `allowed` spellings
  /// (as JSON text, e.g. "0" or "\"silu\"").
  void refuse_unless(std::string_view key, std::initializer_list<std::string_view> allowed,
                     std::string_view supported);
  /// rope_theta with rope_scaling (4.x) or rope_parameters (5.x).
  void rope(double default_theta, std::span<const RopeType> supported, ModelConfig& config);
  /// Every entry of the list `key`, if present, must be `value`.
  void all_equal(std::string_view key, std::string_view value);

 private:
  struct Json;
  void wrong(std::string_view key, std::string_view expected);
  void unsupported(std::string_view key, std::string_view found, std::string_view supported);

  std::string label_;
  std::unique_ptr<Json> json_;
  Status status_;
};

struct Family {
  std::string_view model_type;
  void (*read)(ConfigReader& reader, ModelConfig& config);
  const TensorNames& (*names)();
};

/// All families, sorted by model_type.
std::span<const Family> families();
/// Null when unknown.
const Family* find_family(std::string_view model_type);

/// What the families share: sizes, heads (kv heads default to `default_kv_heads`, 0 = as many as
/// heads), vocabulary, head flags, silu, and the refusals that hold for all of them.
struct CommonDefaults {
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e4;
  int64_t max_position_embeddings = 4096;
  int64_t num_kv_heads = 0;
  int64_t num_experts_per_tok = 0;
};
void read_common(ConfigReader& reader, const CommonDefaults& defaults, ModelConfig& config);

// One per family_*.cc.
extern const Family kFlexOlmo;
extern const Family kOlmoe;
extern const Family kMixtral;

}  // namespace chimera
