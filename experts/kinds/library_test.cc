// Modules of kind library in this process: the numbers, the refusals, loading and unloading.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/digest.h"
#include "base/testing.h"
#include "experts/kinds/library_module.h"
#include "experts/kinds/load.h"
#include "experts/library/plugin_host.h"
#include "experts/library/process_state.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHidden = 16;
const std::string kFingerprint = "sha256:" + std::string(64, 'b');
const std::string kPlugins = CHIMERA_BINARY_DIR "/plugins/";
const std::string kKept = CHIMERA_SOURCE_DIR "/tests/plugins/abi-1.0/scale.so";

/// A module directory with a library and gate rows.
struct Draft {
  Manifest manifest;
  std::string dir;
  std::shared_ptr<LibraryRuntime> runtime;
  std::vector<std::string> lines;  // of the log

  explicit Draft(const std::string& library = kPlugins + "scale_2.so",
                 LibraryRuntime::Options options = {}) {
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    options.log = [this](LibraryRuntime::Severity, const std::string&, const std::string& line) {
      lines.push_back(line);
    };
    runtime = std::make_shared<LibraryRuntime>(std::move(options));
    manifest.name = "scale";
    manifest.version = "1.0.0";
    manifest.kind = ModuleKind::kLibrary;
    manifest.backbone_fingerprint = kFingerprint;
    manifest.hidden_size = kHidden;
    manifest.library.emplace();
    manifest.library->file = "scale.so";
    manifest.library->id = "org.chimera.test.scale";
    manifest.library->gate = "gate.safetensors";
    manifest.library->isolation = Isolation::kInProcess;
    install(library);
  }
  ~Draft() { fs::remove_all(dir); }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  /// By rename, as an installer does.
  void install(const std::string& library) {
    fs::copy_file(library, dir + "/.new");
    fs::permissions(dir + "/.new", fs::perms(0644));
    fs::rename(dir + "/.new", dir + "/scale.so");
  }

  void write(int64_t rows = 2) {
    std::vector<TensorView> gates;
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(rows * kHidden), 0.5f);
    for (const char* name : {"layers.0.gate.weight", "layers.1.gate.weight"}) {
      TensorView view;
      view.name = name;
      view.shape = {rows, kHidden};
      view.bytes = std::as_bytes(std::span(*values));
      view.owner = values;
      gates.push_back(view);
    }
    ASSERT_TRUE(write_safetensors(dir + "/gate.safetensors", gates, {}).ok());
    manifest.files = {{"scale.so", *sha256_of_file(dir + "/scale.so")},
                      {"gate.safetensors", *sha256_of_file(dir + "/gate.safetensors")}};
    save();
  }
  void save() const { std::ofstream(dir + "/module.yaml") << manifest_yaml(manifest); }

  BackboneInfo backbone() const {
    BackboneInfo info;
    info.config.hidden_size = kHidden;
    info.config.num_layers = 2;
    info.config.num_experts = 4;
    info.fingerprint = kFingerprint;
    info.libraries = runtime;
    return info;
  }
  Result<std::shared_ptr<const Module>> load() const { return load_module(dir, backbone()); }
};

/// Output of one expert for rows of 1, 2, 3, …
std::vector<float> run(const Module& module, int64_t layer, size_t expert, int64_t rows,
                       int threads = 1) {
  std::vector<float> x(static_cast<size_t>(rows * kHidden)), y(x.size(), NAN);
  FloatBuffer scratch;
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
  ThreadPool pool(threads);
  ExpertContext context{best_kernels(), pool, scratch};
  const Status status =
      module.layers.at(layer).experts[expert]->forward(x.data(), rows, y.data(), context);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return y;
}

void expect_factor(const Module& module, float factor) {
  for (const int64_t layer : {0, 1}) {
    for (const size_t expert : {0u, 1u}) {
      // 8 is the plugin's max_rows: 19 rows are three calls.
      for (const int64_t rows : {1, 8, 19}) {
        for (const int threads : {1, 3}) {
          const std::vector<float> y = run(module, layer, expert, rows, threads);
          const float want =
              factor * static_cast<float>(layer + 1) * static_cast<float>(expert + 2);
          for (size_t i = 0; i < y.size(); ++i) {
            ASSERT_EQ(y[i], want * static_cast<float>(i + 1)) << layer << " " << expert << " " << i;
          }
        }
      }
    }
  }
}

std::string mapped_libraries() {
  std::ifstream maps("/proc/self/maps");
  std::string line, found;
  while (std::getline(maps, line)) {
    if (line.find("chimera-scale") != std::string::npos) found += line + "\n";
  }
  return found;
}

size_t descriptors() {
  return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

TEST(Library, ComputesAndUnmaps) {
  Draft draft;
  draft.write();
  const std::string mapped = mapped_libraries();
  {
    const auto module = draft.load();
    ASSERT_TRUE(module.ok()) << module.status().to_string();
    expect_factor(**module, 2.0f);
    EXPECT_EQ((*module)->expert_count(), 4);
    EXPECT_NE(mapped_libraries(), mapped);
    const LibraryInfo& info = (*module)->library->info();
    EXPECT_EQ(info.id, "org.chimera.test.scale");
    EXPECT_EQ(info.abi, "1.1");
    EXPECT_EQ(info.build, "abi-1.0");
    EXPECT_TRUE(info.bitwise && info.reentrant && info.unload_clean);
    const LibraryStatus status = (*module)->library->status();
    EXPECT_EQ(status.state, LibraryState::kActive);
    EXPECT_EQ(status.failures, 0u);
    EXPECT_GT(status.counters.at("rows"), 100u);
    // The image, and the 64 KiB that the plugin took from the host.
    EXPECT_GE((*module)->resident_bytes(), (64u << 10) + 4096u);
  }
  EXPECT_EQ(mapped_libraries(), mapped);
  const LibraryStats stats = draft.runtime->stats();
  EXPECT_EQ(stats.loaded, 1u);
  EXPECT_EQ(stats.unloaded, 1u);
  EXPECT_EQ(stats.kept, 0u);
}

TEST(Library, LoadsTheBinaryBuiltAgainstAbi10) {
#if !defined(__x86_64__)
  GTEST_SKIP() << "the kept binary is for x86-64";
#endif
  Draft draft(kKept);
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok()) << module.status().to_string();
  expect_factor(**module, 1.0f);
}

TEST(Library, ConfigurationReachesThePlugin) {
  Draft draft;
  draft.manifest.library->config = "7";
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok()) << module.status().to_string();
  expect_factor(**module, 7.0f);
}

TEST(Library, NewBytesUnderTheSamePathRunTheNewCode) {
  Draft draft;
  draft.write();
  const auto old = draft.load();
  ASSERT_TRUE(old.ok()) << old.status().to_string();
  draft.install(kPlugins + "scale_3.so");
  draft.manifest.version = "1.1.0";
  draft.write();
  const auto fresh = draft.load();
  ASSERT_TRUE(fresh.ok()) << fresh.status().to_string();
  expect_factor(**fresh, 3.0f);
  expect_factor(**old, 2.0f);
  // And back, with the first still loaded.
  draft.install(kPlugins + "scale_2.so");
  draft.manifest.version = "1.0.0";
  draft.write();
  const auto again = draft.load();
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  expect_factor(**again, 2.0f);
}

// The hazard that unique names are for: the descriptor of a memory file comes again.
TEST(Library, DescriptorNumbersMayComeAgain) {
  const auto before = descriptors();
  for (int i = 0; i < 6; ++i) {
    const bool odd = i % 2 != 0;
    Draft draft(kPlugins + (odd ? "scale_3.so" : "scale_2.so"));
    draft.manifest.version = odd ? "1.1.0" : "1.0.0";
    draft.write();
    const auto module = draft.load();
    ASSERT_TRUE(module.ok()) << module.status().to_string();
    expect_factor(**module, odd ? 3.0f : 2.0f);
    EXPECT_EQ(descriptors(), before);
  }
}

TEST(Library, FileChangedAfterLoadingDoesNotMatter) {
  Draft draft;
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok());
  fs::resize_file(draft.dir + "/scale.so", 0);
  expect_factor(**module, 2.0f);
}

TEST(Library, KeepsWhatDoesNotDeclareToUnload) {
  LibraryRuntime::Options options;
  options.kept_limit = 2;
  Draft draft(kPlugins + "scale_kept.so", options);
  draft.write();
  const std::string mapped = mapped_libraries();
  for (uint64_t i = 1; i <= 2; ++i) {
    const auto module = draft.load();
    ASSERT_TRUE(module.ok()) << module.status().to_string();
    expect_factor(**module, 1.0f);
    EXPECT_FALSE((*module)->library->info().unload_clean);
  }
  const LibraryStats stats = draft.runtime->stats();
  EXPECT_EQ(stats.kept, 2u);
  EXPECT_EQ(stats.unloaded, 0u);
  EXPECT_GT(stats.kept_bytes, 0u);
  EXPECT_NE(stats.kept_images[0].reason.find("does not declare"), std::string::npos);
  EXPECT_NE(mapped_libraries(), mapped);
  const auto refused = draft.load();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted) << refused.status().to_string();
  EXPECT_NE(refused.status().hint().find("Restart"), std::string::npos);
}

TEST(Library, ManyCyclesLeaveNothing) {
  Draft draft;
  draft.write();
  const auto cycle = [&] {
    const auto module = draft.load();
    ASSERT_TRUE(module.ok()) << module.status().to_string();
  };
  const std::string mapped = mapped_libraries();
  for (int i = 0; i < 20; ++i) cycle();
  const size_t open = descriptors();
  constexpr int kCycles = 200;
  uint64_t cycles = 20;
  // One leaked image a cycle would be 16 KiB each, 3200 in all. Sanitizers keep freed memory.
  constexpr int64_t kAllowedKib = 1600;
  [[maybe_unused]] const int64_t growth = testing_support::growth_kib(kAllowedKib, [&] {
    for (int i = 0; i < kCycles; ++i, ++cycles) cycle();
  });
  EXPECT_EQ(descriptors(), open);
  EXPECT_EQ(mapped_libraries(), mapped);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(growth, kAllowedKib) << "KiB after " << kCycles << " cycles";
#endif
  EXPECT_EQ(draft.runtime->stats().unloaded, cycles);
}

TEST(Library, ForwardFromSeveralThreads) {
  Draft draft(kPlugins + "scale_kept.so");  // of the serial class
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok());
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const std::vector<float> y = run(**module, 1, 0, 3);
        ASSERT_EQ(y[5], 4.0f * 6.0f);
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(Library, ItsOwnLimitIsReported) {
  Draft draft;
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok());
  std::vector<float> x(kHidden), y(kHidden);
  FloatBuffer scratch;
  ThreadPool pool(1);
  ExpertContext context{best_kernels(), pool, scratch};
  context.limit_ns = 1;  // long past
  const Status status = (*module)->layers.at(0).experts[0]->forward(x.data(), 1, y.data(), context);
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded) << status.to_string();
  EXPECT_EQ((*module)->library->status().failures, 1u);
}

struct Bad {
  friend void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }
  const char* name;
  Code code;
  const char* message;
  std::function<void(Draft&)> spoil;          // before writing
  std::function<void(Draft&)> spoil_written;  // after writing
};

class BadLibrary : public ::testing::TestWithParam<Bad> {};

TEST_P(BadLibrary, IsRefusedByNameAndLeavesNothing) {
  Draft draft;
  if (GetParam().spoil) GetParam().spoil(draft);
  draft.write();
  if (GetParam().spoil_written) GetParam().spoil_written(draft);
  const size_t open = descriptors();
  const std::string mapped = mapped_libraries();
  const auto runtime = draft.runtime;
  const auto module = draft.load();
  ASSERT_FALSE(module.ok());
  EXPECT_EQ(module.status().code(), GetParam().code) << module.status().to_string();
  EXPECT_NE(module.status().message().find(GetParam().message), std::string::npos)
      << module.status().message();
  EXPECT_EQ(module.status().message().find("/proc/"), std::string::npos);
  EXPECT_EQ(descriptors(), open);
  EXPECT_EQ(mapped_libraries(), mapped) << fmt::format("{}", fmt::join(draft.lines, "\n"));
  if (runtime != nullptr) {
    EXPECT_EQ(runtime->stats().kept, 0u);
  }
}

void flip_byte(const std::string& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 1));
}

const Bad kBad[] = {
    {"flipped_bit",
     Code::kDataCorrupt,
     "scale.so: found sha256:",
     {},
     [](Draft& d) { flip_byte(d.dir + "/scale.so", 5000); }},
    {"not_a_library",
     Code::kDataCorrupt,
     "found no ELF file",
     [](Draft& d) { std::ofstream(d.dir + "/scale.so") << "#!/bin/sh\n"; },
     {}},
    {"cut_library",
     Code::kDataCorrupt,
     "found a segment that leaves the file",
     [](Draft& d) { fs::resize_file(d.dir + "/scale.so", 4096); },
     {}},
    {"another_library",
     Code::kDataCorrupt,
     "found no note of owner Chimera",
     [](Draft& d) {
       fs::copy_file("/lib/x86_64-linux-gnu/libm.so.6", d.dir + "/scale.so",
                     fs::copy_options::overwrite_existing);
     },
     {}},
    {"writable_by_others",
     Code::kPermissionDenied,
     "found mode 666",
     [](Draft& d) { fs::permissions(d.dir + "/scale.so", fs::perms(0666)); },
     {}},
    {"link",
     Code::kPermissionDenied,
     "found a symbolic link",
     {},
     [](Draft& d) {
       fs::rename(d.dir + "/scale.so", d.dir + "/real.so");
       fs::create_symlink("real.so", d.dir + "/scale.so");
     }},
    {"another_version",
     Code::kFailedPrecondition,
     "found version 1.0.0 (expected 2.0.0, as module.yaml says)",
     [](Draft& d) { d.manifest.version = "2.0.0"; },
     {}},
    {"another_id",
     Code::kFailedPrecondition,
     "found id org.chimera.test.scale (expected com.example.other",
     [](Draft& d) { d.manifest.library->id = "com.example.other"; },
     {}},
    {"another_backbone",
     Code::kFailedPrecondition,
     "found backbone fingerprint",
     [](Draft& d) { d.manifest.backbone_fingerprint = "sha256:" + std::string(64, 'c'); },
     {}},
    {"too_many_gate_rows",
     Code::kFailedPrecondition,
     "experts per layer 0:2 1:2 (expected experts per layer 0:3 1:3",
     {},
     [](Draft& d) { d.write(3); }},
    {"no_gate", Code::kInvalidArgument, "found 0 gate rows",
     [](Draft& d) { d.manifest.library->gate.clear(); },
     [](Draft& d) {
       d.manifest.files.pop_back();
       d.save();
     }},
    {"layers_disagree",
     Code::kInvalidArgument,
     "found gate rows of 2 layers (expected those of `layers` only, 1)",
     [](Draft& d) { d.manifest.layers = {0}; },
     {}},
    {"bad_configuration",
     Code::kInvalidArgument,
     "config: found something else (expected one digit)",
     [](Draft& d) { d.manifest.library->config = "fast"; },
     {}},
    {"memory_cap",
     Code::kResourceExhausted,
     "no memory for the factor",
     [](Draft& d) { d.manifest.library->memory_mib = 0; },
     {}},
    {"not_finite",
     Code::kDataCorrupt,
     "self-test",
     [](Draft& d) { d.manifest.library->config = "i"; },
     {}},
    {"in_process_not_allowed",
     Code::kPermissionDenied,
     "found isolation in-process",
     [](Draft& d) {
       LibraryRuntime::Options options;
       options.allow_in_process = false;
       d.runtime = std::make_shared<LibraryRuntime>(options);
     },
     {}},
    {"above_the_ceilings",
     Code::kPermissionDenied,
     "library.deadline_ms: found 2000 (expected at most 1999, libraries.max_deadline_ms of the "
     "deployment); library.memory_mib: found 1024 (expected at most 1023,",
     [](Draft& d) {
       LibraryRuntime::Options options;
       options.ceilings.deadline_ms = 1999;
       options.ceilings.memory = (1ull << 30) - 1;
       d.manifest.library->deadline_ms = 2000;
       d.runtime = std::make_shared<LibraryRuntime>(options);
     },
     {}},
    {"too_long_to_load",
     Code::kDeadlineExceeded,
     "self-test: found it at layer 0, expert 0 when the time to load was up",
     [](Draft& d) {
       LibraryRuntime::Options options;
       options.ceilings.load = std::chrono::milliseconds(0);
       d.runtime = std::make_shared<LibraryRuntime>(options);
     },
     {}},
    {"no_plugin_code",
     Code::kUnimplemented,
     "this program runs no plugin code",
     [](Draft& d) { d.runtime = nullptr; },
     {}},
};

INSTANTIATE_TEST_SUITE_P(All, BadLibrary, ::testing::ValuesIn(kBad),
                         [](const auto& bad) { return std::string(bad.param.name); });

// ---- what differs between before and after -----------------------------------------------------

// The kernel wakes whoever joins a thread before the thread leaves /proc.
TEST(ProcessState, AThreadThatWasJoinedIsNoDifference) {
  const ProcessState before = ProcessState::now();
  for (int round = 0; round < 1000; ++round) {
    {
      const ControlCallGuard guard;
      std::thread([] {}).join();
    }
    ASSERT_EQ(ProcessState::plugin_threads(), 0u) << "round " << round;
  }
  EXPECT_EQ(ProcessState::now().difference(before), "");
}

TEST(ProcessState, SeesHandlersFilesThreadsAndFloatingPoint) {
  const ProcessState before = ProcessState::now();
  EXPECT_EQ(ProcessState::now().difference(before), "");

  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGUSR2, &action, &old), 0);
  EXPECT_NE(ProcessState::now().difference(before).find("signal 12"), std::string::npos);
  ASSERT_EQ(sigaction(SIGUSR2, &old, nullptr), 0);

  {
    const std::ifstream file("/proc/self/cmdline");
    EXPECT_NE(ProcessState::now().difference(before).find("descriptor"), std::string::npos);
  }
  {
    std::atomic<bool> stop{false};
    std::thread thread;
    {
      const ControlCallGuard guard;
      thread = std::thread([&] {
        while (!stop) std::this_thread::yield();
      });
    }
    EXPECT_NE(ProcessState::now().difference(before).find("1 threads started"), std::string::npos);
    stop = true;
    thread.join();
  }
  setenv("CHIMERA_TEST_STATE", "1", 1);
  EXPECT_NE(ProcessState::now().difference(before).find("environment"), std::string::npos);
  unsetenv("CHIMERA_TEST_STATE");
  EXPECT_EQ(ProcessState::now().difference(before), "");
}

}  // namespace
}  // namespace chimera
