// Changes that fail, wait, are overtaken or collide: nothing of them stays (invariant 6).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <thread>

#include "base/testing.h"
#include "base/threads/live_threads.h"
#include "daemon/registry/registry.h"
#include "daemon/registry/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// --- invariant 6: a failed change leaves no trace ----------------------------------------------

// Sanitizers keep freed memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeasureMemory = false;
#else
constexpr bool kMeasureMemory = true;
#endif

struct BadModule {
  const char* name;
  Code code;
  const char* message;
  void (*damage)(const std::string& dir);
};

void set_weights(const std::string& dir, float value) {
  const std::string path = dir + "/weights.safetensors";
  const std::string old = must(sha256_of_file(path));
  std::string bytes = slurp(path);
  for (size_t i = 1; i <= 64; ++i) memcpy(&bytes[bytes.size() - 4 * i], &value, 4);
  spill(path, bytes);
  reseal(dir, old);
}

const BadModule kBadModules[] = {
    {"missing", Code::kNotFound, "copy", [](const std::string& d) { fs::remove_all(d); }},
    {"no_manifest", Code::kNotFound, "module.yaml",
     [](const std::string& d) { fs::remove(d + "/module.yaml"); }},
    {"broken_manifest", Code::kInvalidArgument,
     "module.yaml:", [](const std::string& d) { edit(d + "/module.yaml", "kind:", "kin:"); }},
    {"library", Code::kInvalidArgument, "library",
     [](const std::string& d) { edit(d + "/module.yaml", "weights\n", "library\n"); }},
    {"fingerprint", Code::kFailedPrecondition, "found backbone fingerprint",
     [](const std::string& d) {
       edit(d + "/module.yaml", Fixture::get().loaded().fingerprint,
            "sha256:" + std::string(64, '0'));
     }},
    {"hidden_size", Code::kFailedPrecondition, "found backbone.hidden_size",
     [](const std::string& d) { edit(d + "/module.yaml", "hidden_size: 64", "hidden_size: 65"); }},
    {"flipped_bit", Code::kDataCorrupt, "weights.safetensors",
     [](const std::string& d) {
       std::string bytes = slurp(d + "/weights.safetensors");
       bytes.back() = static_cast<char>(bytes.back() ^ 1);
       spill(d + "/weights.safetensors", bytes);
     }},
    {"truncated", Code::kDataCorrupt, "weights.safetensors",
     [](const std::string& d) { fs::resize_file(d + "/weights.safetensors", 1000); }},
    {"nan", Code::kDataCorrupt, "",
     [](const std::string& d) { set_weights(d, std::numeric_limits<float>::quiet_NaN()); }},
    {"overflow", Code::kDataCorrupt, "probe", [](const std::string& d) { set_weights(d, 3e38f); }},
    {"link", Code::kPermissionDenied, "",
     [](const std::string& d) {
       fs::rename(d + "/weights.safetensors", d + "/../elsewhere");
       fs::create_symlink(d + "/../elsewhere", d + "/weights.safetensors");
     }},
};

TEST_F(RegistryTest, FailedLoadsLeaveNoTrace) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  const Stream stream = daemon->run();
  const std::string digest = daemon->digest();
  const auto once = [&](const BadModule& bad) {
    const std::string dir = copy("legal");
    bad.damage(dir);
    const auto loaded = daemon->load(dir);
    ASSERT_FALSE(loaded.ok()) << bad.name;
    EXPECT_EQ(loaded.status().code(), bad.code) << bad.name << loaded.status().to_string();
    EXPECT_THAT(loaded.status().message(), HasSubstr(bad.message)) << bad.name;
    EXPECT_FALSE(daemon->registry->apply(spec_of({at("bio"), dir}), InFlight::kPin).ok());
    EXPECT_EQ(daemon->registry->plan(spec_of({dir})).refusals.size(), 1u) << bad.name;
    EXPECT_EQ(daemon->digest(), digest) << bad.name;
    EXPECT_EQ(daemon->epoch(), 2u) << bad.name;
  };
  const auto all = [&](int times) {
    for (int i = 0; i < times; ++i) {
      for (const BadModule& bad : kBadModules) once(bad);
    }
  };
  all(2);  // buffers grow to their size
  const size_t descriptors = open_descriptors();
  const size_t threads = live_threads().size();
  const int64_t growth = growth_kib(1024, [&] { all(3); });
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(live_threads().size(), threads);
  if (kMeasureMemory) {
    EXPECT_LT(growth, 1024) << "KiB";
  }
  EXPECT_EQ(daemon->run(), stream);
  EXPECT_EQ(daemon->registry->history().size(), 2u);
  EXPECT_EQ(daemon->registry->modules().size(), 1u);
}

TEST_F(RegistryTest, WrongArgumentsOfLoad) {
  const auto daemon = start();
  LoadArgs args;
  args.path = at("legal");
  args.name = "bio";
  EXPECT_THAT(daemon->registry->load(args).status().message(),
              HasSubstr("name: found bio (expected legal"));
  args.name = "legal";
  args.bias = 1e9f;
  EXPECT_EQ(daemon->registry->load(args).status().code(), Code::kInvalidArgument);
  args.bias = 1.0f;
  EXPECT_TRUE(daemon->registry->load(args).ok());
  EXPECT_EQ(daemon->load("legal").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(daemon->load("").status().code(), Code::kInvalidArgument);
}

// The state directory cannot be written: nothing changes, and later it works again.
TEST_F(RegistryTest, FullDiskRefusesTheChange) {
  class FullEnv : public Env {
   public:
    ssize_t write(int fd, const void* b, size_t n) override {
      if (!full) return Env::write(fd, b, n);
      errno = ENOSPC;
      return -1;
    }
    bool full = false;
  };
  FullEnv env;
  Daemon::Settings settings;
  settings.env = &env;
  const auto daemon = start(settings);
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  env.full = true;
  for (const Status& status :
       {daemon->load(at("legal")).status(), daemon->registry->unload("bio").status()}) {
    EXPECT_EQ(status.code(), Code::kResourceExhausted);
    EXPECT_THAT(status.to_string(), HasSubstr("No space left"));
  }
  EXPECT_EQ(daemon->epoch(), 2u);
  env.full = false;
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  EXPECT_EQ(daemon->names(), "bio,legal");
}

TEST_F(RegistryTest, FullDiskKeepsNobodyIn) {
  class FullEnv : public Env {
   public:
    ssize_t write(int fd, const void* b, size_t n) override {
      if (!full) return Env::write(fd, b, n);
      errno = ENOSPC;
      return -1;
    }
    std::atomic<bool> full{false};
  };
  FullEnv env;
  Daemon::Settings settings;
  settings.env = &env;
  auto daemon = start(settings);
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  env.full = true;
  const auto report = daemon->registry->revoke("bio");
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->durable);
  EXPECT_EQ(daemon->names(), "");
  EXPECT_EQ(daemon->registry->history().size(), 2u);
  env.full = false;
  // Written once it can be, without anybody asking.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (daemon->registry->history().size() < 3 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_EQ(daemon->registry->history().size(), 3u);
  EXPECT_TRUE(daemon->registry->history().back().composition.modules.empty());
  EXPECT_EQ(daemon->registry->history().back().revoked, std::vector<std::string>{"bio"});
  EXPECT_TRUE(daemon->load(at("bio")).ok());
}

// A revocation whose record is still to be written when the disk has room again. The thread that
// writes late ones finds none, so that the test decides what comes before it.
class LateRevocation : public RegistryTest {
 protected:
  class AlmostFullEnv : public Env {
   public:
    ssize_t write(int fd, const void* b, size_t n) override {
      char thread[16] = "";
      pthread_getname_np(pthread_self(), thread, sizeof thread);
      if (!full && std::string_view(thread) != "chimera-record") return Env::write(fd, b, n);
      errno = ENOSPC;
      return -1;
    }
    std::atomic<bool> full{false};
  };

  /// A daemon that has revoked bio and could not write so.
  std::unique_ptr<Daemon> revoked(Daemon::Settings settings) {
    settings.env = &env_;
    auto daemon = start(std::move(settings));
    EXPECT_TRUE(daemon->load(at("bio")).ok());
    env_.full = true;
    const auto report = daemon->registry->revoke("bio");
    EXPECT_TRUE(report.ok() && !report->durable);
    env_.full = false;
    EXPECT_EQ(daemon->registry->history().size(), 2u);
    return daemon;
  }
  void expect_out_after_restart(std::unique_ptr<Daemon> daemon) {
    daemon.reset();
    daemon = start();
    EXPECT_EQ(daemon->names(), "");
    EXPECT_EQ(daemon->registry->history().back().revoked, std::vector<std::string>{"bio"});
  }

  AlmostFullEnv env_;
};

TEST_F(LateRevocation, IsNotLostToACanary) {
  auto daemon = revoked({});
  LoadArgs args = load_of(at("legal"));
  args.canary = 0.5;
  const auto began = daemon->registry->load(args);
  ASSERT_TRUE(began.ok()) << began.status().to_string();
  expect_out_after_restart(std::move(daemon));
}

TEST_F(LateRevocation, IsNotLostToAChangeThatIsTakenBack) {
  Daemon::Settings settings;
  settings.engine.max_live_epochs = 1;
  settings.publish_timeout = std::chrono::milliseconds(250);
  Unhurried unhurried;
  auto daemon = revoked(settings);
  const auto sink = submit(*daemon->engine, greedy(prompt(1, 4), 300), nullptr, unhurried.from(1));
  ASSERT_TRUE(sink->wait_tokens(1));
  EXPECT_EQ(daemon->load(at("legal")).status().code(), Code::kFailedPrecondition);
  unhurried.go_on();
  sink->done();
  expect_out_after_restart(std::move(daemon));
}

// --- publishing refused, revoked meanwhile -----------------------------------------------------

TEST_F(RegistryTest, RefusedPublicationIsNotRemembered) {
  uint64_t used = 0;
  {
    Daemon::Settings settings;
    settings.engine.max_live_epochs = 1;
    settings.publish_timeout = std::chrono::milliseconds(250);
    const auto daemon = start(settings);
    const auto sink = submit(*daemon->engine, greedy(prompt(1, 4), 1900), nullptr, slowly);
    ASSERT_TRUE(sink->wait_tokens(1));
    const auto refused = daemon->load(at("legal"));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.status().message(), HasSubstr("sequence"));
    EXPECT_EQ(daemon->registry->history().size(), 1u);
    EXPECT_EQ(daemon->epoch(), 1u);
    used = daemon->store->last_epoch();
    EXPECT_EQ(used, 2u);
  }
  const auto daemon = start();
  EXPECT_EQ(daemon->names(), "");
  EXPECT_GT(daemon->epoch(), used);
}

TEST_F(RegistryTest, RevocationOvertakesAWaitingPublication) {
  Daemon::Settings settings;
  settings.engine.max_live_epochs = 1;
  const auto daemon = start(settings);
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  Engine::RequestId id = 0;
  const auto sink = submit(*daemon->engine, greedy(prompt(1, 4), 1900), &id, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  Status waiting;
  std::thread loader([&] { waiting = daemon->load(at("bio")).status(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto start_time = std::chrono::steady_clock::now();
  const auto revoked = daemon->registry->revoke("legal");
  const auto took = std::chrono::steady_clock::now() - start_time;
  daemon->engine->cancel(id);
  loader.join();
  ASSERT_TRUE(revoked.ok()) << revoked.status().to_string();
  EXPECT_LT(took, std::chrono::seconds(10));  // not the 30 s that the publication may wait
  EXPECT_TRUE(waiting.ok()) << waiting.to_string();
  EXPECT_EQ(daemon->names(), "bio");
}

TEST_F(RegistryTest, StopGivesUpAWaitingPublication) {
  Daemon::Settings settings;
  settings.engine.max_live_epochs = 1;
  const auto daemon = start(settings);
  const auto sink = submit(*daemon->engine, greedy(prompt(1, 4), 1900), nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  Status waiting;
  std::thread loader([&] { waiting = daemon->load(at("bio")).status(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  daemon->registry->stop();
  loader.join();
  EXPECT_THAT(waiting.code(), AnyOf(Code::kUnavailable, Code::kOk));
  EXPECT_EQ(daemon->load(at("bio")).status().code(), Code::kUnavailable);
}

TEST_F(RegistryTest, RevokeLetsGoOfTheMemory) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const std::weak_ptr<const Module> module = daemon->engine->table()->modules().at(1);
  const auto sink = submit(*daemon->engine, greedy(prompt(1, 4), 500));
  ASSERT_TRUE(sink->wait_tokens(1));
  ASSERT_TRUE(daemon->registry->revoke("legal").ok());
  EXPECT_TRUE(module.expired());
  EXPECT_TRUE(daemon->registry->modules().empty());
  sink->done();
}

// --- many callers ------------------------------------------------------------------------------

TEST_F(RegistryTest, ConflictingCallersGetOnlyListedErrors) {
  const auto daemon = start();
  std::vector<std::thread> callers;
  std::atomic<int> loads{0}, unloads{0}, unexpected{0};
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < 12; ++i) {
        const Status status = (t + i) % 2 == 0 ? daemon->load(at("legal")).status()
                              : i % 5 == 0     ? daemon->registry->revoke("legal").status()
                                               : daemon->registry->unload("legal").status();
        if (status.ok()) {
          ++((t + i) % 2 == 0 ? loads : unloads);
        } else if (status.code() != Code::kNotFound && status.code() != Code::kUnavailable) {
          ++unexpected;
        }
        (void)daemon->registry->modules();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(unexpected, 0);
  EXPECT_GT(loads, 0);
  EXPECT_GT(unloads, 0);
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  EXPECT_EQ(daemon->names(), "legal");
  EXPECT_EQ(daemon->registry->history().back().composition, daemon->registry->composition());
  EXPECT_EQ(daemon->registry->history().back().epoch, daemon->epoch());
}

TEST_F(RegistryTest, LoadUnloadCyclesStayFlat) {
  const auto daemon = start();
  const auto cycle = [&] {
    ASSERT_TRUE(daemon->load(at("legal")).ok());
    ASSERT_TRUE(daemon->registry->unload("legal").ok());
  };
  for (int i = 0; i < 70; ++i) cycle();  // the history fills up to its 64 records
  const size_t descriptors = open_descriptors(), maps = mappings();
  const size_t threads = live_threads().size();
  const int64_t growth = growth_kib(1024, [&] {
    for (int i = 0; i < 50; ++i) cycle();
  });
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(live_threads().size(), threads);
  EXPECT_LE(mappings(), maps + 2);  // the allocator may split its own
  if (kMeasureMemory) {
    EXPECT_LT(growth, 1024) << "KiB";
  }
}

}  // namespace
}  // namespace chimera
