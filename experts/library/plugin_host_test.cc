// The services that a plugin instance gets, called as a plugin would.
#include "experts/library/plugin_host.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "experts/library/plugin_instance.h"

namespace chimera {
namespace {

class PluginHostTest : public ::testing::Test {
 protected:
  PluginHostTest() {
    LibraryRuntime::Options options;
    options.log = [this](LibraryRuntime::Severity, const std::string&, const std::string& line) {
      const MutexLock guard(mutex_);
      lines_.push_back(line);
    };
    runtime_ = std::make_unique<LibraryRuntime>(options);
    make(1 << 20);
  }
  void make(uint64_t memory) {
    PluginHost::Options options;
    options.module = "test";
    options.tensors = &tensors_;
    options.memory_limit = memory;
    options.runtime = runtime_.get();
    owner_ = std::make_unique<PluginHost>(options);
    host_ = owner_->abi();
  }
  template <class Service>
  const Service& service(const char* id) {
    const auto* found = static_cast<const Service*>(host_->get_service(host_, id));
    EXPECT_NE(found, nullptr) << id;
    EXPECT_EQ(found->struct_size, sizeof(Service)) << id;
    return *found;
  }
  static chimera_text text(const char* t) { return {t, std::strlen(t)}; }
  std::vector<std::string> lines() {
    const MutexLock guard(mutex_);
    return lines_;
  }
  bool logged(const std::string& part) {
    const std::vector<std::string> all = lines();
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& l) { return l.find(part) != std::string::npos; });
  }

  Mutex mutex_;
  std::vector<std::string> lines_ GUARDED_BY(mutex_);
  std::vector<TensorView> tensors_;
  std::unique_ptr<LibraryRuntime> runtime_;
  std::unique_ptr<PluginHost> owner_;
  const chimera_host* host_ = nullptr;
};

TEST_F(PluginHostTest, HasEveryServiceOfTheHeadersAndNoOther) {
  for (const char* id : {CHIMERA_LOG_ID, CHIMERA_ERROR_ID, CHIMERA_MEMORY_ID, CHIMERA_WEIGHTS_ID,
                         CHIMERA_PARALLEL_ID, CHIMERA_MATMUL_ID, CHIMERA_CLOCK_ID,
                         CHIMERA_CANCEL_ID, CHIMERA_METRICS_ID, CHIMERA_THREAD_CHECK_ID}) {
    EXPECT_NE(host_->get_service(host_, id), nullptr) << id;
    EXPECT_TRUE(has_plugin_service(id));
    EXPECT_EQ(host_->get_service(host_, (std::string(id) + "x").c_str()), nullptr);
  }
  EXPECT_EQ(host_->get_service(host_, "chimera.log/2"), nullptr);
  EXPECT_EQ(host_->get_service(host_, ""), nullptr);
  EXPECT_EQ(host_->get_service(host_, nullptr), nullptr);
}

TEST_F(PluginHostTest, MemoryIsAlignedZeroedCappedAndTakenBack) {
  const auto& memory = service<chimera_host_memory>(CHIMERA_MEMORY_ID);
  auto* block = static_cast<unsigned char*>(memory.allocate(host_, 1000, 4096, 0));
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 4096, 0u);
  EXPECT_EQ(std::count(block, block + 1000, 0), 1000);
  EXPECT_EQ(memory.used_bytes(host_), 1000u);
  EXPECT_EQ(memory.allocate(host_, (1 << 20) - 999, 0, 0), nullptr) << "beyond the cap";
  void* rest = memory.allocate(host_, (1 << 20) - 1000, 0, 0);
  EXPECT_NE(rest, nullptr) << "exactly to the cap";
  memory.release(host_, rest);
  memory.release(host_, block);
  memory.release(host_, nullptr);
  EXPECT_EQ(memory.used_bytes(host_), 0u);
  for (const uint64_t alignment : {3ull, 1ull << 22}) {
    EXPECT_EQ(memory.allocate(host_, 8, alignment, 0), nullptr) << alignment;
  }
  EXPECT_EQ(memory.allocate(host_, 0, 0, 0), nullptr);
  EXPECT_EQ(memory.allocate(host_, UINT64_MAX, 0, 0), nullptr);
  EXPECT_EQ(memory.allocate(host_, 8, 0, 1u << 5), nullptr) << "unknown flag";
  memory.release(host_, block);  // a second time
  EXPECT_TRUE(logged("release of a block that is none"));
  ASSERT_NE(memory.allocate(host_, 64, 0, 0), nullptr);
  owner_.reset();
  EXPECT_TRUE(logged("left 1 blocks and 0 packed matrices, 64 bytes"));
}

TEST_F(PluginHostTest, FloodOfLinesIsCutAndCounted) {
  const auto& log = service<chimera_host_log>(CHIMERA_LOG_ID);
  for (int i = 0; i < 5000; ++i) log.write(host_, CHIMERA_LOG_INFO, text("again"));
  const size_t written = lines().size();
  EXPECT_LT(written, 300u);
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  log.write(host_, CHIMERA_LOG_INFO, text("later"));
  EXPECT_TRUE(logged("lines of the plugin left out"));
  EXPECT_GE(runtime_->stats().log_lines_dropped, 5000u - 300u);
}

TEST_F(PluginHostTest, LinesAreEscapedAndCut) {
  const auto& log = service<chimera_host_log>(CHIMERA_LOG_ID);
  log.write(host_, CHIMERA_LOG_WARNING, text("a\nforged \x1b[31mline"));
  EXPECT_EQ(lines().back(), "a\\x0aforged \\x1b[31mline");
  const std::string longer(5000, 'x');
  log.write(host_, 99, {longer.data(), longer.size()});
  EXPECT_EQ(lines().back(), std::string(CHIMERA_LOG_MAX_BYTES, 'x') + " [3976 bytes cut]");
  log.write(host_, CHIMERA_LOG_INFO, {nullptr, 5});
}

TEST_F(PluginHostTest, RolesFollowTheCall) {
  const auto& check = service<chimera_host_thread_check>(CHIMERA_THREAD_CHECK_ID);
  EXPECT_EQ(check.role(host_), CHIMERA_ROLE_NONE);
  {
    const PluginCallScope control(*owner_);
    EXPECT_EQ(check.role(host_), CHIMERA_ROLE_CONTROL);
    ThreadPool pool(1);
    {
      const PluginCallScope worker(*owner_, pool, 1);
      EXPECT_EQ(check.role(host_), CHIMERA_ROLE_WORKER);
      PluginHost::Options options;
      options.runtime = runtime_.get();
      const PluginHost other(options);
      EXPECT_EQ(check.role(other.abi()), CHIMERA_ROLE_NONE) << "another plugin's call";
    }
    EXPECT_EQ(check.role(host_), CHIMERA_ROLE_CONTROL);
    std::thread([&] { EXPECT_EQ(check.role(host_), CHIMERA_ROLE_NONE); }).join();
  }
  EXPECT_EQ(check.role(host_), CHIMERA_ROLE_NONE);
}

TEST_F(PluginHostTest, ErrorTextBelongsToTheCallOfThisThread) {
  const auto& error = service<chimera_host_error>(CHIMERA_ERROR_ID);
  error.set(host_, text("outside"));
  const PluginCallScope scope(*owner_);
  EXPECT_EQ(scope.status(CHIMERA_NOT_FOUND, "x").message(), "x: found status not_found");
  error.set(host_, text("first"));
  error.set(host_, text("tensor q: found\nnone"));
  std::thread([&] { error.set(host_, text("other thread")); }).join();
  const Status status = scope.status(CHIMERA_NOT_FOUND, "x");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), "x: tensor q: found\\x0anone");
  EXPECT_TRUE(scope.status(CHIMERA_OK, "x").ok());
  for (const int32_t unknown : {-1, 13, 1000}) {
    EXPECT_EQ(scope.status(unknown, "x").code(), Code::kInternal) << unknown;
  }
}

struct Counts {
  std::array<std::atomic<int>, 100> index{};
  std::array<std::atomic<int>, 4> worker{};
  const chimera_host* host;
  const chimera_host_parallel* parallel;
  const chimera_host_thread_check* check;
};

TEST_F(PluginHostTest, ParallelRunsEveryIndexOnceAndOnlyInsideForward) {
  const auto& parallel = service<chimera_host_parallel>(CHIMERA_PARALLEL_ID);
  Counts counts;
  counts.host = host_;
  counts.parallel = &parallel;
  counts.check = &service<chimera_host_thread_check>(CHIMERA_THREAD_CHECK_ID);
  const chimera_parallel_body body = [](void* context, uint32_t index, uint32_t worker) {
    Counts& c = *static_cast<Counts*>(context);
    c.index[index].fetch_add(1);
    EXPECT_EQ(c.worker[worker].fetch_add(1), 0) << "two bodies on one worker";
    EXPECT_EQ(c.check->role(c.host), CHIMERA_ROLE_WORKER);
    EXPECT_EQ(c.parallel->run(
                  c.host, 1, [](void*, uint32_t, uint32_t) { ADD_FAILURE(); }, nullptr),
              CHIMERA_FAILED_PRECONDITION)
        << "nested";
    c.worker[worker].fetch_sub(1);
  };
  EXPECT_EQ(parallel.run(host_, 1, body, &counts), CHIMERA_FAILED_PRECONDITION);
  {
    const PluginCallScope control(*owner_);
    EXPECT_EQ(parallel.run(host_, 1, body, &counts), CHIMERA_FAILED_PRECONDITION);
  }
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    const PluginCallScope worker(*owner_, pool, static_cast<uint32_t>(threads));
    EXPECT_EQ(parallel.run(host_, 100, body, &counts), CHIMERA_OK);
    EXPECT_EQ(parallel.run(host_, 0, body, &counts), CHIMERA_OK);
    EXPECT_EQ(parallel.run(host_, 1, nullptr, nullptr), CHIMERA_INVALID_ARGUMENT);
  }
  for (const auto& count : counts.index) EXPECT_EQ(count.load(), 2);
}

TEST_F(PluginHostTest, MatmulAgreesWithDoubleWithinTheBoundOfASum) {
  const auto& matmul = service<chimera_host_matmul>(CHIMERA_MATMUL_ID);
  constexpr uint64_t kRows = 37, kCols = 70, kStride = 80;
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  std::vector<float> w(kRows * kStride), x(3 * kCols), scales(kRows), y(3 * kRows);
  std::vector<int8_t> q(kRows * kStride);
  for (float& v : w) v = normal(rng);
  for (float& v : x) v = normal(rng);
  for (float& v : scales) v = std::abs(normal(rng));
  for (int8_t& v : q) v = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
  chimera_matrix_source source{};
  source.struct_size = sizeof(source);
  source.rows = kRows;
  source.cols = kCols;
  for (const bool i8 : {false, true}) {
    source.dtype = i8 ? CHIMERA_DTYPE_I8 : CHIMERA_DTYPE_F32;
    source.row_stride = kStride * (i8 ? 1 : sizeof(float));
    source.data_borrowed = i8 ? static_cast<const void*>(q.data()) : w.data();
    source.scales_borrowed = i8 ? scales.data() : nullptr;
    chimera_packed_matrix* packed = nullptr;
    ASSERT_EQ(matmul.pack(host_, &source, &packed), CHIMERA_OK);
    EXPECT_GE(owner_->used_bytes(), kRows * kCols);
    std::fill(y.begin(), y.end(), 7.0f);
    ASSERT_EQ(matmul.multiply(host_, packed, x.data(), kCols * 4, 3, 5, 30, y.data(), kRows * 4),
              CHIMERA_OK);
    for (uint64_t r = 0; r < 3; ++r) {
      for (uint64_t i = 0; i < kRows; ++i) {
        if (i < 5 || i >= 30) {
          EXPECT_EQ(y[r * kRows + i], 7.0f) << "outside of the range";
          continue;
        }
        double sum = 0.0, absolute = 0.0;
        for (uint64_t j = 0; j < kCols; ++j) {
          const double weight =
              i8 ? double{scales[i]} * q[i * kStride + j] : double{w[i * kStride + j]};
          sum += weight * double{x[r * kCols + j]};
          absolute += std::abs(weight * double{x[r * kCols + j]});
        }
        // n products and sums, one more rounding for scale times weight: (n + 2) u |w||x|.
        EXPECT_NEAR(double{y[r * kRows + i]}, sum, (kCols + 2) * 0x1p-24 * absolute);
      }
    }
    EXPECT_EQ(
        matmul.multiply(host_, packed, x.data(), kCols * 4, 3, 0, kRows + 1, y.data(), kRows * 4),
        CHIMERA_INVALID_ARGUMENT);
    EXPECT_EQ(matmul.multiply(host_, packed, x.data(), kCols * 4 - 4, 3, 0, 1, y.data(), kRows * 4),
              CHIMERA_INVALID_ARGUMENT);
    matmul.release(host_, packed);
    matmul.release(host_, packed);  // no effect
  }
  EXPECT_EQ(owner_->used_bytes(), 0u);
  chimera_packed_matrix* packed = nullptr;
  source.dtype = CHIMERA_DTYPE_I64;
  EXPECT_EQ(matmul.pack(host_, &source, &packed), CHIMERA_UNIMPLEMENTED);
  source.dtype = CHIMERA_DTYPE_F32;
  EXPECT_EQ(matmul.pack(host_, &source, &packed), CHIMERA_INVALID_ARGUMENT) << "scales with F32";
  source.scales_borrowed = nullptr;
  source.rows = UINT64_MAX;
  EXPECT_EQ(matmul.pack(host_, &source, &packed), CHIMERA_INVALID_ARGUMENT);
  EXPECT_EQ(packed, nullptr);
}

TEST_F(PluginHostTest, WeightsAreFoundByNameAndByIndex) {
  const std::vector<float> values(12, 1.0f);
  for (const char* name : {"a", "b.c"}) {
    TensorView view;
    view.name = name;
    view.shape = {3, 4};
    view.bytes = std::as_bytes(std::span(values));
    tensors_.push_back(view);
  }
  const auto& weights = service<chimera_host_weights>(CHIMERA_WEIGHTS_ID);
  EXPECT_EQ(weights.count(host_), 2u);
  chimera_tensor tensor{};
  tensor.struct_size = sizeof(tensor);
  ASSERT_EQ(weights.find(host_, text("b.c"), &tensor), CHIMERA_OK);
  EXPECT_EQ(tensor.dtype, CHIMERA_DTYPE_F32);
  EXPECT_EQ(tensor.rank, 2u);
  EXPECT_EQ(tensor.shape[1], 4u);
  EXPECT_EQ(tensor.data_borrowed, values.data());
  EXPECT_EQ(tensor.byte_size, 48u);
  ASSERT_EQ(weights.at(host_, 0, &tensor), CHIMERA_OK);
  EXPECT_EQ(std::string_view(tensor.name.data_borrowed, tensor.name.size), "a");
  EXPECT_EQ(weights.at(host_, 2, &tensor), CHIMERA_NOT_FOUND);
  EXPECT_EQ(weights.find(host_, text("b"), &tensor), CHIMERA_NOT_FOUND);
  tensor.struct_size = 8;
  EXPECT_EQ(weights.at(host_, 0, &tensor), CHIMERA_INVALID_ARGUMENT);
}

TEST_F(PluginHostTest, MetricsAreDeclaredOnceAndBounded) {
  const auto& metrics = service<chimera_host_metrics>(CHIMERA_METRICS_ID);
  const uint32_t rows = metrics.counter(host_, text("rows"));
  EXPECT_NE(rows, 0u);
  EXPECT_EQ(metrics.counter(host_, text("rows")), rows);
  EXPECT_EQ(metrics.counter(host_, text("Rows")), 0u);
  EXPECT_EQ(metrics.counter(host_, text("")), 0u);
  metrics.add(host_, rows, 5);
  metrics.add(host_, rows, 6);
  metrics.add(host_, 0, 1);
  metrics.add(host_, rows + 1, 1);
  const double bounds[] = {1.0, 10.0};
  const uint32_t size = metrics.histogram(host_, text("size"), bounds, 2);
  for (const double v : {0.5, 1.0, 5.0, 100.0, std::nan("")}) metrics.observe(host_, size, v);
  EXPECT_EQ(owner_->counters(),
            (std::map<std::string, uint64_t>{
                {"rows", 11}, {"size_le_1", 2}, {"size_le_10", 3}, {"size_count", 4}}));
  const double falling[] = {2.0, 1.0};
  EXPECT_EQ(metrics.histogram(host_, text("bad"), falling, 2), 0u);
  uint32_t declared = 1;
  while (metrics.counter(host_, text(("c" + std::to_string(declared)).c_str())) != 0) ++declared;
  EXPECT_EQ(declared, static_cast<uint32_t>(CHIMERA_METRICS_MAX));
}

TEST_F(PluginHostTest, CancelTellsFlagAndDeadline) {
  const auto& cancel = service<chimera_host_cancel>(CHIMERA_CANCEL_ID);
  const auto& clock = service<chimera_host_clock>(CHIMERA_CLOCK_ID);
  chimera_expert_batch batch{};
  EXPECT_EQ(cancel.check(host_, &batch), CHIMERA_OK);
  uint32_t flag = 0;
  batch.cancel_borrowed = &flag;
  batch.deadline_ns = clock.monotonic_ns(host_) + 3'600'000'000'000;
  EXPECT_EQ(cancel.check(host_, &batch), CHIMERA_OK);
  batch.deadline_ns = 1;
  EXPECT_EQ(cancel.check(host_, &batch), CHIMERA_DEADLINE_EXCEEDED);
  flag = 1;
  EXPECT_EQ(cancel.check(host_, &batch), CHIMERA_CANCELLED);
}

// ---- descriptors -------------------------------------------------------------------------------

struct Spoil {
  friend void PrintTo(const Spoil& spoil, std::ostream* out) { *out << spoil.field; }
  const char* field;
  void (*change)(chimera_expert_descriptor&);
};

chimera_expert_descriptor good_descriptor() {
  static const chimera_expert_layer layers[] = {{0, 1}, {3, 2}};
  chimera_expert_descriptor d{};
  d.struct_size = sizeof(d);
  d.id_borrowed = "org.chimera.test";
  d.version = {"1.0.0", 5};
  d.d_model = 16;
  d.layers_borrowed = layers;
  d.layer_count = 2;
  d.input_dtype = d.output_dtype = CHIMERA_DTYPE_F32;
  d.max_rows = 1;
  d.concurrency = CHIMERA_CONCURRENCY_SERIAL;
  d.determinism = CHIMERA_DETERMINISM_BITWISE;
  return d;
}

LibrarySource good_source() {
  LibrarySource source;
  source.version = source.note.version = "1.0.0";
  source.hidden_size = 16;
  source.fingerprint = "sha256:f";
  source.experts = {{0, 1}, {3, 2}};
  return source;
}

class BadDescriptor : public ::testing::TestWithParam<Spoil> {};

TEST(Descriptor, GoodOneIsAccepted) {
  const Status status = check_plugin_descriptor(good_descriptor(), good_source());
  EXPECT_TRUE(status.ok()) << status.to_string();
}

TEST_P(BadDescriptor, IsRefusedByField) {
  chimera_expert_descriptor d = good_descriptor();
  GetParam().change(d);
  const Status status = check_plugin_descriptor(d, good_source());
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(std::string("descriptor: ") + GetParam().field),
            std::string::npos)
      << status.message();
}

const char* const kUnknownService[] = {"chimera.teleport/1"};

const Spoil kSpoils[] = {
    {"struct_size", [](auto& d) { d.struct_size = 8; }},
    {"version",
     [](auto& d) {
       d.version = {"1.0.1", 5};
     }},
    {"vendor",
     [](auto& d) {
       d.vendor = {nullptr, 3};
     }},
    {"license",
     [](auto& d) {
       d.license = {"x", 1 << 20};
     }},
    {"backbone_fingerprint",
     [](auto& d) {
       d.backbone_fingerprint = {"sha256:g", 8};
     }},
    {"d_model", [](auto& d) { d.d_model = 17; }},
    {"cpu_features", [](auto& d) { d.cpu_features = uint64_t{1} << 60; }},
    {"input_dtype", [](auto& d) { d.input_dtype = CHIMERA_DTYPE_BF16; }},
    {"output_dtype", [](auto& d) { d.output_dtype = 0; }},
    {"max_rows", [](auto& d) { d.max_rows = 0; }},
    {"max_rows", [](auto& d) { d.max_rows = 1 << 20; }},
    {"alignment", [](auto& d) { d.alignment = 48; }},
    {"concurrency", [](auto& d) { d.concurrency = 0; }},
    {"determinism", [](auto& d) { d.determinism = 3; }},
    {"scratch_bytes", [](auto& d) { d.scratch_bytes = UINT64_MAX; }},
    {"layer_count", [](auto& d) { d.layer_count = 0; }},
    {"layer_count", [](auto& d) { d.layers_borrowed = nullptr; }},
    {"layers", [](auto& d) { d.layer_count = 1; }},
    {"required_services",
     [](auto& d) {
       d.required_services_borrowed = kUnknownService;
       d.required_service_count = 1;
     }},
    {"required_service_count", [](auto& d) { d.required_service_count = 5; }},
};

INSTANTIATE_TEST_SUITE_P(All, BadDescriptor, ::testing::ValuesIn(kSpoils));

}  // namespace
}  // namespace chimera
