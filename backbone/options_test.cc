// What the options of config.json mean for the forward pass: small random checkpoints against a
// reference in double precision, written from the formulas without caches, blocks or kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "backbone/backbone.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;
using Row = std::vector<double>;
using Rows = std::vector<Row>;

constexpr uint32_t kSeed = 4711;

/// y[i] = 0.4 * x[i+1] - 0.1, so that the mixture of experts takes no part.
class Shift final : public FeedForward {
 public:
  explicit Shift(int64_t width) : width_(width) {}
  Status forward(int64_t, const float* x, int64_t rows, float* y) override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width_; ++i)
        y[r * width_ + i] = 0.4f * x[r * width_ + (i + 1) % width_] - 0.1f;
    return Status();
  }
  static Row of(const Row& x) {
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = 0.4 * x[(i + 1) % x.size()] - 0.1;
    return y;
  }

 private:
  int64_t width_;
};

/// A checkpoint directory with random tensors of whatever shapes are asked for.
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(const Json& config) {
    dir_ = fs::temp_directory_path() /
           ("chimera_options_" + std::to_string(::getpid()) + "_" + std::to_string(++count_));
    fs::create_directories(dir_);
    std::ofstream(dir_ / "config.json") << write_json(config);
  }
  ~RandomCheckpoint() { fs::remove_all(dir_); }

  void add(const std::string& name, std::vector<int64_t> shape, float mean, float spread) {
    std::normal_distribution<float> d(mean, spread);
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    std::vector<float>& values = values_[name];
    for (int64_t i = 0; i < n; ++i) values.push_back(d(random_));
    TensorView t;
    t.name = name;
    t.shape = std::move(shape);
    t.bytes = std::as_bytes(std::span(values));
    tensors_.push_back(t);
  }
  const std::vector<float>& values(const std::string& name) const { return values_.at(name); }
  bool has(const std::string& name) const { return values_.contains(name); }

  Result<Checkpoint> open() {
    const Status written =
        write_safetensors((dir_ / "model.safetensors").string(), tensors_, {{"format", "pt"}});
    EXPECT_TRUE(written.ok()) << written.to_string();
    return Checkpoint::open(dir_.string(), Residency::kCopied);
  }

 private:
  static inline int count_ = 0;
  fs::path dir_;
  std::mt19937 random_{kSeed};
  std::map<std::string, std::vector<float>> values_;
  std::vector<TensorView> tensors_;
};

/// Weights of a checkpoint that fits `c`; norms around 1, so that a forgotten one shows.
void fill_checkpoint(RandomCheckpoint& out, const ModelConfig& c) {
  const int64_t h = c.hidden_size;
  const int64_t q = c.num_heads * c.head_dim;
  const int64_t kv = c.num_kv_heads * c.head_dim;
  out.add("model.embed_tokens.weight", {c.vocab_size, h}, 0, 1);
  out.add("lm_head.weight", {c.vocab_size, h}, 0, 0.3f);
  out.add("model.norm.weight", {h}, 1, 0.2f);
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const auto add = [&](const std::string& tail, std::vector<int64_t> shape, float mean,
                         float spread) { out.add(layer_tensor(c, l, tail), shape, mean, spread); };
    add("self_attn.q_proj.weight", {q, h}, 0, 0.3f);
    add("self_attn.k_proj.weight", {kv, h}, 0, 0.3f);
    add("self_attn.v_proj.weight", {kv, h}, 0, 0.3f);
    add("self_attn.o_proj.weight", {h, q}, 0, 0.3f);
    add("self_attn.q_proj.bias", {q}, 0, 0.5f);
    add("self_attn.k_proj.bias", {kv}, 0, 0.5f);
    add("self_attn.v_proj.bias", {kv}, 0, 0.5f);
    add("self_attn.o_proj.bias", {h}, 0, 0.5f);
    add("self_attn.q_norm.weight", {q}, 1, 0.2f);
    add("self_attn.k_norm.weight", {kv}, 1, 0.2f);
    add(tensor_names(c).attention_norm, {h}, 1, 0.2f);
    add(tensor_names(c).ffn_norm, {h}, 1, 0.2f);
  }
}

/// The formulas of model-families.md, sections 0, 3 and 4.
class Reference {
 public:
  Reference(const RandomCheckpoint& w, const ModelConfig& c) : w_(w), c_(c) {}

  Rows logits(const std::vector<int32_t>& ids) const {
    const auto h = static_cast<size_t>(c_.hidden_size);
    const std::vector<float>& embedding = w_.values("model.embed_tokens.weight");
    Rows x;
    for (int32_t id : ids)
      x.emplace_back(embedding.begin() + id * c_.hidden_size,
                     embedding.begin() + (id + 1) * c_.hidden_size);
    for (int64_t l = 0; l < c_.num_layers; ++l) {
      const std::string norm1 = layer_tensor(c_, l, tensor_names(c_).attention_norm);
      const std::string norm2 = layer_tensor(c_, l, tensor_names(c_).ffn_norm);
      const bool pre = c_.model_type != "flex_olmo";
      Rows in = x;
      if (pre)
        for (Row& r : in) r = rms(r, norm1);
      Rows a = attention(l, in);
      for (size_t t = 0; t < x.size(); ++t) {
        add(x[t], pre ? a[t] : rms(a[t], norm1));
        add(x[t], pre ? Shift::of(rms(x[t], norm2)) : rms(Shift::of(x[t]), norm2));
      }
    }
    Rows out;
    for (Row& r : x)
      out.push_back(product(c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                            rms(r, "model.norm.weight")));
    EXPECT_EQ(x[0].size(), h);
    return out;
  }

 private:
  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Row product(const std::string& name, const Row& x) const {
    const std::vector<float>& w = w_.values(name);
    Row y(w.size() / x.size(), 0.0);
    for (size_t n = 0; n < y.size(); ++n)
      for (size_t k = 0; k < x.size(); ++k) y[n] += static_cast<double>(w[n * x.size() + k]) * x[k];
    return y;
  }
  Row rms(const Row& x, const std::string& weight) const {
    const std::vector<float>& w = w_.values(weight);
    double squares = 0;
    for (double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) +
                                       static_cast<double>(c_.rms_norm_eps));
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = static_cast<double>(w[i]) * x[i] * scale;
    return y;
  }
  Row project(int64_t l, const std::string& which, const Row& x) const {
    Row y = product(layer_tensor(c_, l, "self_attn." + which + "_proj.weight"), x);
    if (c_.attention_bias) {
      const std::vector<float>& b =
          w_.values(layer_tensor(c_, l, "self_attn." + which + "_proj.bias"));
      add(y, Row(b.begin(), b.end()));
    }
    if (c_.model_type != "mixtral" && (which == "q" || which == "k"))
      y = rms(y, layer_tensor(c_, l, "self_attn." + which + "_norm.weight"));
    if (c_.clip_qkv && which != "o")
      for (double& v : y) {
        const auto limit = static_cast<double>(*c_.clip_qkv);
        v = std::min(std::max(v, -limit), limit);
      }
    return y;
  }
  void rotate(Row& row, size_t position) const {
    const auto d = static_cast<size_t>(c_.head_dim);
    for (size_t head = 0; head < row.size(); head += d)
      for (size_t i = 0; i < d / 2; ++i) {
        const double frequency =
            std::pow(c_.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(d)) /
            (c_.rope.type == RopeType::kLinear ? c_.rope.factor : 1.0);
        const double angle = static_cast<double>(position) * frequency;
        const double a = row[head + i];
        const double b = row[head + i + d / 2];
        row[head + i] = a * std::cos(angle) - b * std::sin(angle);
        row[head + i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
  }
  Rows attention(int64_t l, const Rows& x) const {
    Rows q, k, v, out;
    for (size_t t = 0; t < x.size(); ++t) {
      q.push_back(project(l, "q", x[t]));
      k.push_back(project(l, "k", x[t]));
      v.push_back(project(l, "v", x[t]));
      rotate(q[t], t);
      rotate(k[t], t);
    }
    const auto d = static_cast<size_t>(c_.head_dim);
    const auto group = static_cast<size_t>(c_.num_heads / c_.num_kv_heads);
    for (size_t i = 0; i < x.size(); ++i) {
      Row mixed(q[i].size(), 0.0);
      for (size_t head = 0; head < static_cast<size_t>(c_.num_heads); ++head) {
        const size_t kv = head / group * d;
        Row p(i + 1, 0.0);
        double total = 0;
        for (size_t j = 0; j <= i; ++j) {
          // The window holds w keys including the query's own.
          const AttentionMask& mask = c_.masks[static_cast<size_t>(l)];
          if (mask.kind == MaskKind::kSliding && static_cast<int64_t>(i - j) >= mask.width)
            continue;
          double s = 0;
          for (size_t n = 0; n < d; ++n) s += q[i][head * d + n] * k[j][kv + n];
          total += p[j] = std::exp(s / std::sqrt(static_cast<double>(d)));
        }
        for (size_t j = 0; j <= i; ++j)
          for (size_t n = 0; n < d; ++n) mixed[head * d + n] += p[j] / total * v[j][kv + n];
      }
      out.push_back(project(l, "o", mixed));
    }
    return out;
  }

  const RandomCheckpoint& w_;
  const ModelConfig& c_;
};

Json base_config(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 24},        {"intermediate_size", 8},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4}, {"num_key_value_heads", 4},
          {"num_experts_per_tok", 1}, {"vocab_size", 50},         {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0}};
}

ModelConfig parsed(const Json& j) {
  const Result<ModelConfig> c = parse_model_config(write_json(j), "config.json");
  EXPECT_TRUE(c.ok()) << c.status().to_string();
  return *c;
}

std::vector<float> run_model(const Backbone& backbone, const std::vector<int32_t>& ids,
                             size_t chunk) {
  auto cache = KvCache::create(backbone.config(), {8, 16, false, 0});
  EXPECT_TRUE(cache.ok());
  KvSequence kv(cache->get());
  EXPECT_TRUE(kv.reserve(static_cast<int64_t>(ids.size())).ok());
  ThreadPool pool(2);
  Workspace workspace;
  Shift ffn(backbone.config().hidden_size);
  std::vector<float> all;
  for (size_t at = 0; at < ids.size(); at += chunk) {
    std::vector<BatchSegment> batch = {
        {std::span(ids).subspan(at, std::min(chunk, ids.size() - at)), static_cast<int64_t>(at),
         &kv, BatchSegment::Logits::kAll}};
    const Status status = backbone.forward(batch, ffn, best_kernels(), pool, workspace);
    EXPECT_TRUE(status.ok()) << status.to_string();
    all.insert(all.end(), workspace.logits.begin(), workspace.logits.end());
  }
  return all;
}

struct Option {
  const char* name;
  const char* family;
  Json patch;
};

class Options : public testing::TestWithParam<Option> {};

TEST_P(Options, MeanWhatTheFormulasSay) {
  Json j = base_config(GetParam().family);
  j.update(GetParam().patch);
  const ModelConfig config = parsed(j);
  RandomCheckpoint files(j);
  fill_checkpoint(files, config);
  const Result<Checkpoint> checkpoint = files.open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const auto backbone = Backbone::load(*checkpoint, Precision::kF32);
  ASSERT_TRUE(backbone.ok()) << backbone.status().to_string();

  std::mt19937 random(kSeed);
  std::vector<int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back(static_cast<int32_t>(random() % 50));
  const Rows expected = Reference(files, config).logits(ids);
  for (size_t chunk : {40u, 1u, 7u}) {
    const std::vector<float> logits = run_model(**backbone, ids, chunk);
    ASSERT_EQ(logits.size(), ids.size() * 50);
    for (size_t t = 0; t < ids.size(); ++t)
      for (size_t n = 0; n < 50; ++n)
        ASSERT_NEAR(logits[t * 50 + n], expected[t][n], 2e-4)
            << "position " << t << " chunk " << chunk << " seed " << kSeed;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, Options,
    testing::Values(
        Option{"olmoe", "olmoe", Json::object()},
        Option{"olmoe_grouped", "olmoe", {{"num_key_value_heads", 2}}},
        Option{"olmoe_bias", "olmoe", {{"attention_bias", true}}},
        Option{"olmoe_clip", "olmoe", {{"clip_qkv", 0.7}}},
        Option{"olmoe_linear", "olmoe", {{"rope_scaling", {{"type", "linear"}, {"factor", 3.0}}}}},
        Option{
            "olmoe_dynamic", "olmoe", {{"rope_scaling", {{"type", "dynamic"}, {"factor", 3.0}}}}},
        Option{"olmoe_eps", "olmoe", {{"rms_norm_eps", 0.5}}},
        Option{"flex", "flex_olmo", Json::object()},
        Option{
            "flex_grouped_bias", "flex_olmo", {{"num_key_value_heads", 1}, {"attention_bias", 1}}},
        Option{"flex_head_dim", "flex_olmo", {{"head_dim", 10}}},
        Option{"mixtral", "mixtral", Json::object()},
        Option{"mixtral_window", "mixtral", {{"sliding_window", 5}}},
        Option{"mixtral_window_of_one", "mixtral", {{"sliding_window", 1}}},
        Option{"mixtral_wide_heads", "mixtral", {{"head_dim", 16}, {"num_key_value_heads", 2}}},
        Option{"mixtral_tied", "mixtral", {{"tie_word_embeddings", true}}}),
    [](const auto& option) { return std::string(option.param.name); });

TEST(BackboneForward, DynamicRotationEndsAtMaxPositionEmbeddings) {
  Json j = base_config("olmoe");
  j["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  j["max_position_embeddings"] = 8;
  RandomCheckpoint files(j);
  fill_checkpoint(files, parsed(j));
  const Result<Checkpoint> checkpoint = files.open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  const auto backbone = Backbone::load(*checkpoint, Precision::kF32);
  ASSERT_TRUE(backbone.ok()) << backbone.status().to_string();
  auto cache = KvCache::create((*backbone)->config(), {4, 4, false, 0});
  ASSERT_TRUE(cache.ok());
  KvSequence kv(cache->get());
  ASSERT_TRUE(kv.reserve(16).ok());
  ThreadPool pool(1);
  Workspace workspace;
  Shift ffn(24);
  const std::vector<int32_t> ids(9, 7);
  const auto run = [&](size_t n, int64_t position) {
    std::vector<BatchSegment> batch = {
        {std::span(ids).first(n), position, &kv, BatchSegment::Logits::kLast}};
    return (*backbone)->forward(batch, ffn, best_kernels(), pool, workspace);
  };
  EXPECT_TRUE(run(8, 0).ok());
  EXPECT_EQ(run(9, 0).code(), Code::kUnimplemented);
  const Status beyond = run(1, 8);
  EXPECT_EQ(beyond.code(), Code::kUnimplemented);
  EXPECT_NE(beyond.message().find("max_position_embeddings 8"), std::string::npos)
      << beyond.to_string();
}

TEST(BackboneLoad, NamesTheTensorThatIsMissingOrOfAnotherShape) {
  const Json j = base_config("mixtral");
  for (const bool missing : {true, false}) {
    RandomCheckpoint files(j);
    ModelConfig other = parsed(j);
    if (missing)
      other.num_layers = 1;
    else
      other.num_kv_heads = 2;
    fill_checkpoint(files, other);
    const Result<Checkpoint> checkpoint = files.open();
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    const auto backbone = Backbone::load(*checkpoint, Precision::kF32);
    ASSERT_FALSE(backbone.ok());
    const std::string text = backbone.status().to_string();
    for (const std::string& part :
         missing ? std::vector<std::string>{"model.layers.1.self_attn.q_proj.weight"}
                 : std::vector<std::string>{"model.layers.0.self_attn.k_proj.weight", "[12, 24]",
                                            "[24, 24]"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace chimera
