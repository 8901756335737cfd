// The recorder itself: it says nothing of a host that keeps the contract, and notices each breach.
// Without this a green test of the daemon would prove nothing.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "chimera/services.h"

namespace {

constexpr uint32_t kModel = 256, kRows = 4;

const void* no_service(const chimera_host*, const char*) { return nullptr; }

/// The recorder in this process, and a small host without services that drives it.
class RecorderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    handle_ = dlopen(CHIMERA_RECORDER, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(handle_, nullptr) << dlerror();
    entry_ = static_cast<const chimera_expert_entry*>(dlsym(handle_, CHIMERA_EXPERT_ENTRY_SYMBOL));
    ASSERT_NE(entry_, nullptr);
    log_ = ::testing::TempDir() + "recorder-" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".log";
    std::remove(log_.c_str());
    const chimera_init_info info = {sizeof(info), 1, 0, {nullptr, 0}};
    ASSERT_EQ(entry_->init(&info), CHIMERA_OK);
    const auto* factory =
        static_cast<const chimera_expert_factory*>(entry_->get_factory(CHIMERA_EXPERT_FACTORY_ID));
    expert_ = factory->create("org.chimera.recorder", &host_);
    ASSERT_NE(expert_, nullptr);
    const std::string config = "log=" + log_;
    ASSERT_EQ(expert_->prepare(expert_, {config.data(), config.size()}), CHIMERA_OK);
    x_ = static_cast<unsigned char*>(std::aligned_alloc(64, kRows * 1024));
    y_ = static_cast<unsigned char*>(std::aligned_alloc(64, kRows * 1024));
    scratch_ = static_cast<unsigned char*>(std::aligned_alloc(64, 256));
    std::fill_n(x_, kRows * 1024, static_cast<unsigned char>(0));
  }
  void TearDown() override {
    std::free(x_);
    std::free(y_);
    std::free(scratch_);
  }
  void activate() {
    const chimera_expert_limits limits = {sizeof(limits), kRows, 1, 1, UINT64_MAX};
    ASSERT_EQ(expert_->activate(expert_, &limits), CHIMERA_OK);
  }
  chimera_expert_batch batch() const {
    return {sizeof(chimera_expert_batch),
            2,
            0,
            kRows,
            x_,
            y_,
            1024,
            1024,
            CHIMERA_DTYPE_F32,
            CHIMERA_DTYPE_F32,
            1,
            0,
            scratch_,
            192,
            192,
            0,
            nullptr,
            1,
            nullptr};
  }
  void forward(const std::function<void(chimera_expert_batch&)>& change = [](auto&) {}) {
    chimera_expert_batch b = batch();
    change(b);
    expert_->forward(expert_, &b);
  }
  void leave() {
    expert_->deactivate(expert_);
    expert_->destroy(expert_);
    entry_->deinit();
  }
  /// What the log says was broken: "forward: not active\n…".
  std::string breaches() const {
    std::ifstream in(log_);
    std::string out;
    for (std::string line; std::getline(in, line);) {
      if (line.find("\"breach\"") == std::string::npos) continue;
      out += line.substr(line.find("\"what\"")) + "\n";
    }
    return out;
  }

  void* handle_ = nullptr;
  const chimera_expert_entry* entry_ = nullptr;
  chimera_expert* expert_ = nullptr;
  chimera_host host_ = {sizeof(chimera_host), 1, 0, {"test", 4}, {"1", 1}, nullptr, no_service};
  std::string log_;
  unsigned char *x_ = nullptr, *y_ = nullptr, *scratch_ = nullptr;
};

TEST_F(RecorderTest, SaysNothingOfAHostThatKeepsTheContract) {
  activate();
  forward();
  forward([](auto& b) { b.n_rows = 0; });
  EXPECT_EQ(expert_->reset(expert_), CHIMERA_OK);
  leave();
  EXPECT_EQ(breaches(), "");
}

TEST_F(RecorderTest, NoticesForwardOutsideActivation) {
  forward();
  EXPECT_NE(breaches().find("not active"), std::string::npos);
  activate();
  leave();
}

TEST_F(RecorderTest, NoticesForwardAfterDeactivate) {
  activate();
  expert_->deactivate(expert_);
  forward();
  EXPECT_NE(breaches().find("not active"), std::string::npos);
  expert_->destroy(expert_);
  entry_->deinit();
}

TEST_F(RecorderTest, NoticesForwardAfterDestroy) {
  activate();
  leave();
  EXPECT_EQ(breaches(), "");
  forward();
  EXPECT_NE(breaches().find("not active"), std::string::npos);
}

TEST_F(RecorderTest, NoticesWrongMemory) {
  activate();
  const std::pair<const char*, std::function<void(chimera_expert_batch&)>> kWrong[] = {
      {"x or y is not aligned",
       [](auto& b) { b.n_rows = 1, b.x_borrowed = static_cast<const char*>(b.x_borrowed) + 16; }},
      {"x_stride", [](auto& b) { b.n_rows = 1, b.x_stride = 1020; }},
      {"y_stride", [](auto& b) { b.n_rows = 1, b.y_stride = 960; }},
      {"x and y overlap", [](auto& b) { b.y_borrowed = const_cast<void*>(b.x_borrowed); }},
      {"scratch memory", [](auto& b) { b.scratch_size = 64; }},
      {"more rows", [](auto& b) { b.n_rows = kRows + 1, b.x_stride = b.y_stride = 64; }},
      {"layer or expert", [](auto& b) { b.layer = 6; }},
      {"worker_count", [](auto& b) { b.worker_count = 2, b.scratch_stride = 0; }},
      {"dtype", [](auto& b) { b.input_dtype = CHIMERA_DTYPE_BF16; }},
  };
  for (const auto& [what, change] : kWrong) {
    const std::string before = breaches();
    forward(change);
    EXPECT_NE(breaches().substr(before.size()).find(what), std::string::npos) << what;
  }
  leave();
}

TEST_F(RecorderTest, NoticesCallsOutOfTurn) {
  activate();
  entry_->deinit();  // with an instance alive
  EXPECT_NE(breaches().find("an instance is alive"), std::string::npos);
  expert_->deactivate(expert_);
  expert_->deactivate(expert_);
  EXPECT_NE(breaches().find("not active"), std::string::npos);
  expert_->destroy(expert_);
}

}  // namespace
