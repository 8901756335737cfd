// Experts of a checkpoint that leave memory and come back: bit for bit, or not at all, with the
// memory that they say they take.
#include "experts/kinds/evictable_base.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "backbone/checkpoint/safetensors.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/packed_tensor.h"
#include "experts/executor.h"
#include "experts/kinds/weights.h"

namespace chimera {
namespace {

// AddressSanitizer keeps what was freed, and the process's memory says nothing of it.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kKeepsFreedMemory = true;
#else
constexpr bool kKeepsFreedMemory = false;
#endif

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t kHidden = 256;
constexpr int64_t kWidth = 1024;
constexpr int64_t kExperts = 8;
constexpr std::chrono::milliseconds kAtOnce{0};

constexpr const char* kConfig = R"({"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe",
  "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 320,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "norm_topk_prob": false, "hidden_act": "silu", "tie_word_embeddings": false})";

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().to_string());
  return std::move(*result);
}

/// As `chimera backbone pack` stores it; `stretch`: of the exponent of the matrix.
TensorView packed_q8(const TensorView& t, float stretch) {
  TensorView out =
      packed_tensor(t.name, must(to_matrix(t, t.shape[0], t.shape[1], Precision::kQ8)));
  EXPECT_NE(out.scale, 1.0f);
  out.scale *= stretch;
  return out;
}

/// The routed experts and gates of a checkpoint, 16 experts of 3 MiB, or packed as q8.
void write_checkpoint(const std::string& dir, bool packed = false, float stretch = 1.0f) {
  std::mt19937 rng(7);
  std::vector<TensorView> tensors;
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(rows * cols));
    for (float& v : *values) v = static_cast<float>(rng()) / 4e10f - 0.05f;
    TensorView view;
    view.name = name;
    view.shape = {rows, cols};
    view.bytes = std::as_bytes(std::span(*values));
    view.owner = values;
    tensors.push_back(packed && name.ends_with("_proj.weight") ? packed_q8(view, stretch)
                                                               : std::move(view));
  };
  for (int layer = 0; layer < 2; ++layer) {
    const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
    add(mlp + "gate.weight", kExperts, kHidden);
    for (int64_t e = 0; e < kExperts; ++e) {
      const std::string expert = fmt::format("{}experts.{}.", mlp, e);
      add(expert + "gate_proj.weight", kWidth, kHidden);
      add(expert + "up_proj.weight", kWidth, kHidden);
      add(expert + "down_proj.weight", kHidden, kWidth);
    }
  }
  std::ofstream(dir + "/config.json") << kConfig;
  const Status written = write_safetensors(dir + "/model.safetensors", tensors, {});
  ASSERT_TRUE(written.ok()) << written.to_string();
}

/// Proportional set size of this process, bytes.
double pss() {
  (void)malloc_trim(0);
  std::ifstream in("/proc/self/smaps_rollup");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("Pss:")) return std::strtod(line.c_str() + 4, nullptr) * 1024.0;
  }
  return 0.0;
}

class EvictableBase : public ::testing::Test {
 protected:
  void SetUp() override {
    (void)mallopt(M_MMAP_THRESHOLD, 256 << 10);  // as a daemon does: what is freed goes back
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    write_checkpoint(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::shared_ptr<const Module> load(Residency residency, Precision p) const {
    const Checkpoint checkpoint = must(Checkpoint::open(dir_, residency));
    const ModelConfig config = must(parse_model_config(checkpoint.config_json(), dir_));
    const auto base = must(load_base_experts(checkpoint, config, p));
    return must(make_evictable(base, checkpoint, config, p, kAtOnce));
  }
  /// Of the experts at `places`, for some rows.
  static std::vector<float> outputs(const Module& base, std::span<const ExpertPlace> places) {
    std::mt19937 rng(3);
    std::vector<float> x(static_cast<size_t>(3 * kHidden));
    for (float& v : x) v = static_cast<float>(rng()) / 2e9f - 1.0f;
    ThreadPool pool(1);
    FloatBuffer scratch;
    ExpertContext context{best_kernels(), pool, scratch};
    std::vector<float> all;
    for (const ExpertPlace& place : places) {
      std::vector<float> y(x.size());
      const Expert& expert = *base.layers.at(place.layer).experts[static_cast<size_t>(place.index)];
      ExpertCall call;  // as the router makes it
      call.expert = &expert.current();
      call.x = x.data();
      call.rows = 3;
      call.y = y.data();
      call.expert->executor().run({&call, 1}, context);
      EXPECT_TRUE(call.done);
      if (!call.status.ok()) return {};
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }
  static std::vector<ExpertPlace> some() {
    return {{0, 0}, {0, 3}, {0, 7}, {1, 1}, {1, 2}, {1, 6}};
  }
  static std::vector<ExpertPlace> others() {
    std::vector<ExpertPlace> out;
    const std::vector<ExpertPlace> without = some();
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t e = 0; e < kExperts; ++e) {
        const ExpertPlace place{layer, e};
        if (std::find(without.begin(), without.end(), place) == without.end()) out.push_back(place);
      }
    }
    return out;
  }
  std::string weights() const { return dir_ + "/model.safetensors"; }

  std::string dir_;
};

TEST_F(EvictableBase, WhatNobodyUsesGoesAndComesBackBitForBitWithItsMemory) {
  for (const Residency residency : {Residency::kMapped, Residency::kCopied}) {
    for (const Precision p : {Precision::kF32, Precision::kBF16, Precision::kQ8}) {
      SCOPED_TRACE(fmt::format("mapped {}, precision {}", residency == Residency::kMapped,
                               static_cast<int>(p)));
      const auto base = load(residency, p);
      ExpertResidency& residency_of = *base->residency;
      const std::vector<ExpertPlace> all = [&] {
        std::vector<ExpertPlace> places = some();
        const std::vector<ExpertPlace> rest = others();
        places.insert(places.end(), rest.begin(), rest.end());
        return places;
      }();
      const std::vector<float> before = outputs(*base, all);
      const uint64_t whole = base->resident_bytes();
      const double held = pss();
      const auto part = static_cast<double>(residency_of.bytes_of(some()));

      const auto kept = residency_of.lease(others());
      residency_of.let_go_unused();
      residency_of.settle();
      EXPECT_TRUE(kept->ready());
      EXPECT_EQ(base->resident_bytes(), whole - static_cast<uint64_t>(part));
      EXPECT_TRUE(outputs(*base, some()).empty()) << "what is not there says so";
      EXPECT_EQ(outputs(*base, others()).size(), before.size() / 16 * 10);
      if (!kKeepsFreedMemory) {
        EXPECT_NEAR(held - pss(), part, 0.05 * part + (1 << 20));
      }

      const auto again = residency_of.lease(all);
      EXPECT_FALSE(again->ready());
      EXPECT_FALSE(again->failure());
      ASSERT_TRUE(again->wait().ok()) << again->wait().to_string();
      EXPECT_TRUE(again->ready());
      EXPECT_EQ(base->resident_bytes(), whole);
      EXPECT_EQ(outputs(*base, all), before);
      if (!kKeepsFreedMemory) {
        EXPECT_NEAR(pss(), held, 0.05 * held + (1 << 20));
      }
    }
  }
}

TEST_F(EvictableBase, WhatIsStoredPackedComesBackBitForBitWithItsExponent) {
  write_checkpoint(dir_, true);
  for (const Residency residency : {Residency::kMapped, Residency::kCopied}) {
    SCOPED_TRACE(residency == Residency::kMapped ? "mapped" : "copied");
    const auto base = load(residency, Precision::kQ8);
    const std::vector<float> before = outputs(*base, some());
    base->residency->let_go_unused();
    base->residency->settle();
    EXPECT_TRUE(outputs(*base, some()).empty());
    const auto lease = base->residency->lease(some());
    ASSERT_TRUE(lease->wait().ok()) << lease->wait().to_string();
    EXPECT_EQ(outputs(*base, some()), before);
  }
  // Another exponent, and nothing else.
  const auto base = load(Residency::kMapped, Precision::kQ8);
  base->residency->let_go_unused();
  base->residency->settle();
  fs::remove(weights());
  write_checkpoint(dir_, true, 2.0f);
  const Status status = base->residency->lease(some())->wait();
  EXPECT_EQ(status.code(), Code::kDataCorrupt) << status.to_string();
  EXPECT_THAT(status.message(), HasSubstr("as it was loaded"));
}

TEST_F(EvictableBase, ItGoesOnceMoreAfterItCameBack) {
  for (const Residency residency : {Residency::kMapped, Residency::kCopied}) {
    const auto base = load(residency, Precision::kF32);
    const std::vector<ExpertPlace> places = some();
    const std::vector<float> before = outputs(*base, places);
    const auto part = static_cast<double>(base->residency->bytes_of(places));
    const double held = pss();
    const auto kept = base->residency->lease(others());
    for (int round = 0; round < 3; ++round) {
      base->residency->let_go_unused();
      base->residency->settle();
      if (!kKeepsFreedMemory) {
        EXPECT_NEAR(held - pss(), part, 0.05 * part + (1 << 20)) << round;
      }
      const auto lease = base->residency->lease(places);
      ASSERT_TRUE(lease->wait().ok());
      EXPECT_EQ(outputs(*base, places), before);
    }
  }
}

TEST_F(EvictableBase, OtherBytesAreRefusedAndTheOldOnesTakenOnceTheyAreBack) {
  const auto base = load(Residency::kMapped, Precision::kF32);
  const std::vector<ExpertPlace> places = some();
  const std::vector<float> before = outputs(*base, places);
  base->residency->let_go_unused();
  base->residency->settle();
  const auto lease = base->residency->lease(places);

  // Another checkpoint in its place, of the same shapes.
  fs::copy_file(weights(), weights() + ".whole");
  fs::rename(weights() + ".whole", dir_ + "/whole");
  {
    fs::copy_file(weights(), dir_ + "/other");
    std::fstream file(dir_ + "/other", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(weights())) - kHidden * kWidth * 4 * 5);
    file.put('\x55');
  }
  fs::rename(dir_ + "/other", weights());
  bool refused = false;
  for (const ExpertPlace& place : places) {
    const auto one = base->residency->lease(std::span(&place, 1));
    const Status status = one->wait();
    if (status.ok()) continue;
    refused = true;
    EXPECT_EQ(status.code(), Code::kDataCorrupt);
    EXPECT_THAT(status.message(), HasSubstr("as it was loaded"));
    EXPECT_TRUE(one->failure());
  }
  EXPECT_TRUE(refused);

  fs::remove(weights());
  const Status gone = lease->wait();
  EXPECT_EQ(gone.code(), Code::kNotFound) << gone.to_string();
  EXPECT_FALSE(lease->ready());

  fs::rename(dir_ + "/whole", weights());
  ASSERT_TRUE(lease->wait().ok()) << lease->wait().to_string();
  EXPECT_EQ(outputs(*base, places), before);
}

TEST_F(EvictableBase, NothingIsLetGoWhoseFileIsAnother) {
  const auto base = load(Residency::kMapped, Precision::kF32);
  Status problem;
  base->residency->set_account({.problem = [&](const Status& status) { problem = status; }});
  const uint64_t whole = base->resident_bytes();
  fs::copy_file(weights(), dir_ + "/copy");
  fs::rename(dir_ + "/copy", weights());
  base->residency->let_go_unused();
  base->residency->settle();
  EXPECT_EQ(base->resident_bytes(), whole);
  EXPECT_EQ(problem.code(), Code::kFailedPrecondition);
  EXPECT_FALSE(outputs(*base, some()).empty());
}

TEST_F(EvictableBase, WithoutRoomNothingIsReadAndTheAccountIsAsBefore) {
  const auto base = load(Residency::kCopied, Precision::kF32);
  std::atomic<bool> room{false};
  std::atomic<int64_t> balance{0};
  base->residency->set_account(
      {.take = [&](uint64_t bytes) -> Status {
         if (!room) return {Code::kResourceExhausted, "no room"};
         balance += static_cast<int64_t>(bytes);
         return {};
       },
       .give_back = [&](uint64_t bytes) { balance -= static_cast<int64_t>(bytes); }});
  base->residency->let_go_unused();
  base->residency->settle();
  const auto all = static_cast<int64_t>(base->residency->total_bytes());
  EXPECT_EQ(balance, -all);
  const auto lease = base->residency->lease(some());
  EXPECT_EQ(lease->wait().code(), Code::kResourceExhausted);
  EXPECT_EQ(balance, -all);
  room = true;
  EXPECT_TRUE(lease->wait().ok());
  EXPECT_EQ(balance, -all + static_cast<int64_t>(base->residency->bytes_of(some())));
  // What cannot be read gives its room back.
  fs::remove(weights());
  const auto rest = base->residency->lease(others());
  EXPECT_FALSE(rest->wait().ok());
  EXPECT_EQ(balance, -all + static_cast<int64_t>(base->residency->bytes_of(some())));
}

}  // namespace
}  // namespace chimera
