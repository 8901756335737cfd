// What a model family is: a config reader and a tensor-name map. Private to model_config.cc and
// the family_*.cc files; to add a family, write one such file and list it in family.cc.
//
// Thread safety: a ConfigReader by one thread, for one reading; the rest are free functions and
// constants.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/families/model_config.h"
#include "backbone/families/numeric_keys.h"
#include "base/fields/reader.h"
#include "base/json/json.h"
#include "base/status.h"

namespace chimera {

/// Typed access to config.json that collects the problems, so that a family reads all its keys in
/// one go and checks once. Absent and null keys take the class default of the family.
class ConfigReader {
 public:
  ConfigReader(std::string_view json, std::string_view label);
  ConfigReader(const ConfigReader&) = delete;
  ConfigReader& operator=(const ConfigReader&) = delete;

  bool ok() const { return problems_.empty(); }
  Status status() const { return problems_.status(); }
  /// Notes what does not fit together. Only while all is well: behind a value that could not be
  /// read nothing fits.
  void fail(Code code, std::string message, std::string hint = {});

  bool has(std::string_view key);      // present and not null
  bool is_null(std::string_view key);  // present and null
  std::string text(std::string_view key, std::string_view fallback);
  int64_t integer(std::string_view key, int64_t fallback, int64_t least, int64_t most);
  /// An integer that no class default can stand in for.
  int64_t required(std::string_view key, int64_t least, int64_t most);
  double number(std::string_view key, double fallback, double above, double most);
  /// true, false, or an integer as older files have it (0 is false).
  bool boolean(std::string_view key, bool fallback);
  /// One id, a list of ids, or none.
  std::vector<int32_t> ids(std::string_view key);
  /// A list of integers or of texts; nothing when absent, null or of another type (an error then).
  std::optional<std::vector<int64_t>> integers(std::string_view key, int64_t least, int64_t most);
  std::optional<std::vector<std::string>> texts(std::string_view key);
  /// The number of routed experts under any of its names, which must agree.
  int64_t expert_count(int64_t fallback);

  /// quantization_config.quant_method: "" when there is none (or it is empty), else `supported`
  /// ("fp8" in blocks of any size, or "mxfp4"); all others are refused. Checkpoints turn what other
  /// methods store into one of these first (checkpoint/quantized/quantized.h).
  std::string quantization(std::string_view supported);

  /// Refuses the key unless it is absent, null, false, or one of the harmless `allowed` spellings
  /// (as JSON text, e.g. "0" or "\"silu\"").
  void refuse_unless(std::string_view key, std::initializer_list<std::string_view> allowed,
                     std::string_view supported);
  /// Refuses the key with the value it has.
  void refuse(std::string_view key, std::string_view supported);
  /// rope_theta with rope_scaling (4.x) or rope_parameters (5.x).
  void rope(double default_theta, std::span<const RopeType> supported, int64_t max_position,
            RopeParameters& rope);
  /// Every entry of the list `key`, if present, must be `value`.
  void all_equal(std::string_view key, std::string_view value);
  /// Names of all keys, in the order of the file.
  std::vector<std::string> keys() const;
  bool is_object(std::string_view key) const { return member(key).is_object(); }
  bool is_boolean(std::string_view key) const { return member(key).is_boolean(); }
  /// Absent, or an object, a list or a text of nothing.
  bool is_empty(std::string_view key) const { return member(key).empty(); }
  /// Reads from the object `key` from now on, and names its keys "key.…" in messages. An error
  /// when it is absent or no object.
  void descend(std::string_view key);
  /// `key` says nothing that the family could depend on, whatever its value: refuse_unread passes
  /// it.
  void ignore(std::string_view key) { fields_->skip(key); }
  /// Refuses by name every key of numeric_keys() that nobody has read since the last descend and
  /// whose value asks for something that `config` does not do. Call when all is read.
  void refuse_unread(const ModelConfig& config);
  /// Refuses by name every key that nobody has read since the last descend, unless it is null: for
  /// objects all of whose keys count.
  void refuse_unknown();

  /// The value as it stands in the file, cut to a readable length.
  static std::string shown(const Json& value);

 private:
  const Json& member(std::string_view key) const { return root_[key]; }
  /// One rope dictionary made of both spellings, and under which it stands; nothing after an error.
  void merge_rope(Json& merged, std::string& section);
  void wrong(std::string_view key, std::string_view expected);
  std::string named(std::string_view key) const { return fields_->path_of(key); }
  void unsupported(std::string_view key, std::string_view found, std::string_view supported);
  /// A reader of an object inside, whose name is `path`; both outlive it.
  FieldReader fields_of(const Json& object, std::string path);
  /// Reads from `object` from now on.
  void enter(Json object, std::string path);

  Problems problems_;
  Json root_;                          // always an object
  std::optional<FieldReader> fields_;  // of root_
};

struct Family {
  std::string_view model_type;
  void (*read)(ConfigReader& reader, ModelConfig& config);
  const TensorNames& (*names)();
  std::string_view alias = {};  // another model_type of the same family
};

/// All families, sorted by model_type.
std::span<const Family> families();
/// By model_type or one of its aliases (checkpoints whose vendor says that they are of that family
/// and only wrote another name); null when unknown.
const Family* find_family(std::string_view model_type);
/// The supported family that is nearest to a checkpoint of another one, judged by `architectures`
/// and `model_type`; "" when none is near. For hints only.
std::string_view nearest_family(std::string_view model_type,
                                const std::vector<std::string>& architectures);

// Bounds far above any released model; they keep products of sizes within 64 bits.
constexpr int64_t kMostWidth = int64_t{1} << 20;
constexpr int64_t kMostHeadDim = 4096;
constexpr int64_t kMostExperts = 65536;
constexpr int64_t kMostPositions = int64_t{1} << 31;

/// All kinds of rotary scaling that exist here; what most families allow.
std::span<const RopeType> all_rope_types();

/// What the families share: sizes, heads (kv heads default to `num_kv_heads`, 0 = as many as
/// heads; a stated null means as many as heads), vocabulary, head flags, silu, rotary embedding,
/// and the refusals that hold for all of them.
struct CommonDefaults {
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e4;
  int64_t max_position_embeddings = 4096;
  int64_t num_kv_heads = 0;
  int64_t num_experts_per_tok = 0;  // 0: a dense family, which has none
  std::span<const RopeType> rope_types = all_rope_types();
  std::string_view quant_method = "fp8";  // in which the weights may be stored
};
void read_common(ConfigReader& reader, const CommonDefaults& defaults, ModelConfig& config);

/// head_dim: the file's, `fallback` when the key is missing, hidden_size / num_attention_heads when
/// it is null or `fallback` is 0. Call after read_common.
void read_head_dim(ConfigReader& reader, int64_t fallback, ModelConfig& config);

/// The masks of a family with some restricted layers: `restricted` where layer_types says
/// `type_name`, or without that list where `by_default` [num_layers] is set; full elsewhere.
/// A restricted layer of width 0 is refused by `width_key`. Call after read_common.
void read_masks(ConfigReader& reader, std::string_view type_name, std::string_view width_key,
                AttentionMask restricted, const std::vector<uint8_t>& by_default,
                ModelConfig& config);

/// Biases on q, k, v and o alike, as attention_bias says.
void read_attention_bias(ConfigReader& reader, ModelConfig& config);

/// A family without routers: the dense feed-forward is the one base expert
/// (ModelConfig::dense_base).
void make_dense(ModelConfig& config);

/// Layers with a router of the Qwen families (mlp_only_layers, decoder_sparse_step), with the
/// widths of both kinds of layer. Call after read_common.
void read_sparse_layers(ConfigReader& reader, int64_t default_expert_width, ModelConfig& config);

/// Names that most families share: pre-norms, "mlp.gate.weight", "mlp.experts.{e}.gate_proj.weight"
/// and so on, the fused layout of transformers 5, and "mlp." for dense layers.
TensorNames common_names();

// One or two per family_*.cc.
extern const Family kDeepseekV2;
extern const Family kDeepseekV3;
extern const Family kFlexOlmo;
extern const Family kGptOss;
extern const Family kLlama;
extern const Family kLlama4;
extern const Family kLlama4Text;
extern const Family kMixtral;
extern const Family kOlmoe;
extern const Family kQwen2Moe;
extern const Family kQwen3;
extern const Family kQwen3Moe;

}  // namespace chimera
