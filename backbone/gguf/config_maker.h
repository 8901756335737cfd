// Puts a config.json together from the metadata of one architecture: the parts that architectures
// share. Internal to gguf_config.
//
// Thread safety: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "backbone/gguf/config.h"
#include "backbone/gguf/fields.h"
#include "base/json/json.h"

namespace chimera {

class GgufConfigMaker {
 public:
  /// Errors go to `fields`. Both must outlive it.
  GgufConfigMaker(GgufFields& fields, const GgufFind& find, std::string architecture)
      : fields_(fields), find_(find), arch_(std::move(architecture)) {}

  Json config = Json::object();

  // Metadata under the architecture's prefix: "block_count" is "olmoe.block_count".
  std::string key(std::string_view name) const { return arch_ + "." + std::string(name); }
  std::optional<int64_t> integer(std::string_view name) { return fields_.integer(key(name)); }
  std::optional<double> number(std::string_view name) { return fields_.number(key(name)); }
  std::optional<bool> boolean(std::string_view name) { return fields_.boolean(key(name)); }
  int64_t required(std::string_view name) { return fields_.required(key(name)); }

  bool has_tensor(std::string_view name) const { return find_(name) != nullptr; }
  int64_t heads() const { return heads_; }  // after common()

  /// "`what` (expected `expected`)"
  void refuse(const std::string& what, const std::string& expected);
  /// `json_key` as the metadata `name` says; absent where that is.
  void copy(const char* json_key, std::string_view name);

  /// What all architectures have; needed by what follows.
  void common(const char* model_type);
  void head_dim();
  void rope();
  void experts();
  /// Names the layers without a router.
  void dense_layers();
  /// Refuses another expert_gating_func than `expected`, which `name` is the word for.
  void gating(int64_t expected, const char* name);

  /// The shortest decimal that gives the same float, which is what the file keeps: 1e-5, and not
  /// 9.999999747378752e-06.
  static double decimal(double value);

 private:
  void yarn(double factor);

  GgufFields& fields_;
  const GgufFind& find_;
  std::string arch_;
  int64_t heads_ = 0;
};

}  // namespace chimera
