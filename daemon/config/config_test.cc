#include "daemon/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace chimera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::string kConfigs = CHIMERA_SOURCE_DIR "/configs";

std::string temp_dir() {
  std::string name = fs::temp_directory_path() / "chimera-config-XXXXXX";
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  return name;
}

Status parse_status(const std::string& yaml) {
  return parse_deployment(yaml, "d.yaml", "/base").status();
}

TEST(Config, OnlyTheBackboneIsRequired) {
  const auto config = parse_deployment("backbone: {path: model}\n", "d.yaml", "/base");
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  EXPECT_EQ(config->backbone.path, "/base/model");
  EXPECT_EQ(config->backbone.precision, Precision::kBF16);
  EXPECT_EQ(config->serve.max_sequences, 16);
  EXPECT_EQ(config->serve.max_context, 2048);
  EXPECT_EQ(config->threads, 0);
  EXPECT_TRUE(config->composition.modules.empty());
  EXPECT_FALSE(config->composition.top_k.has_value());
}

TEST(Config, ReadsEveryKey) {
  const auto config = parse_deployment(R"(
chimera: deployment/1
backbone:
  path: ../experts/backbone
  precision: f32
composition:
  top_k: 2
  modules:
    - path: ../experts/legal
    - path: /abs/bio/
      bias: -0.25
      precision: q8
      weight: 2.5
    - {path: "with space", enabled: false}
serve:
  endpoint: tcp://127.0.0.1:5555
  insecure: loopback
  max_sequences: 3
  max_context: 99
  max_queue: 7
  prefill_chunk: 5
  max_live_epochs: 2
  prefix_cache: false
  speculative: ngram
control:
  endpoint: ipc://run/control.sock
state: state
security: {key: keys/server.key, clients: /etc/clients.yaml}
watch: [drop, /srv/x]
memory: {budget: 4GiB, kv: 512MiB, kv_format: f16, pin_limit: 90, pinned: end}
libraries: {in_process: allow, max_deadline_ms: 900, max_memory: 3MiB, max_load_ms: 70,
            max_step_ms: 40}
canary: {after: 5, error_rate: 0.1, ms_per_token: 80, bits_per_byte: 2.5}
threads: 4
)",
                                       "d.yaml", "/base/configs");
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  EXPECT_EQ(config->backbone.path, "/base/experts/backbone");
  EXPECT_EQ(config->backbone.precision, Precision::kF32);
  EXPECT_EQ(config->composition.top_k, 2);
  ASSERT_EQ(config->composition.modules.size(), 3u);
  EXPECT_EQ(config->composition.modules[0].path, "/base/experts/legal");
  EXPECT_EQ(config->composition.modules[1].path, "/abs/bio");
  EXPECT_EQ(config->composition.modules[1].bias, -0.25f);
  EXPECT_EQ(config->composition.modules[1].precision, Precision::kQ8);
  EXPECT_FALSE(config->composition.modules[0].precision.has_value());
  EXPECT_EQ(config->composition.modules[1].weight, 2.5);
  EXPECT_FALSE(config->composition.modules[0].weight.has_value());
  EXPECT_EQ(config->composition.modules[2].path, "/base/configs/with space");
  EXPECT_FALSE(config->composition.modules[2].enabled);
  EXPECT_EQ(config->serve.endpoint, "tcp://127.0.0.1:5555");
  EXPECT_TRUE(config->serve.insecure);
  EXPECT_EQ(config->security.key, "/base/configs/keys/server.key");
  EXPECT_EQ(config->security.clients, "/etc/clients.yaml");
  EXPECT_EQ(config->serve.max_sequences, 3);
  EXPECT_EQ(config->serve.max_context, 99);
  EXPECT_EQ(config->serve.max_queue, 7);
  EXPECT_EQ(config->serve.prefill_chunk, 5);
  EXPECT_EQ(config->serve.max_live_epochs, 2);
  EXPECT_FALSE(config->serve.prefix_cache);
  EXPECT_TRUE(config->serve.ngram_speculation);
  EXPECT_EQ(config->control.endpoint, "ipc:///base/configs/run/control.sock");
  EXPECT_EQ(config->state_dir, "/base/configs/state");
  EXPECT_EQ(config->watch, (std::vector<std::string>{"/base/configs/drop", "/srv/x"}));
  EXPECT_EQ(config->memory.budget, uint64_t{4} << 30);
  EXPECT_EQ(config->memory.kv, uint64_t{512} << 20);
  EXPECT_EQ(config->memory.kv_format, KvFormat::kF16);
  EXPECT_EQ(config->memory.pin_limit, 90);
  EXPECT_TRUE(config->memory.end_pinned);
  EXPECT_EQ(config->canary.after, 5);
  EXPECT_EQ(config->canary.error_rate, 0.1);
  EXPECT_EQ(config->canary.ms_per_token, 80.0);
  EXPECT_EQ(config->canary.bits_per_byte, 2.5);
  EXPECT_TRUE(config->libraries.in_process);
  EXPECT_EQ(config->libraries.max_deadline_ms, 900);
  EXPECT_EQ(config->libraries.max_memory, uint64_t{3} << 20);
  EXPECT_EQ(config->libraries.max_load_ms, 70);
  EXPECT_EQ(config->libraries.max_step_ms, 40);
  EXPECT_EQ(config->threads, 4);
}

struct BadCase {
  const char* name;
  std::string yaml;
  std::string expected;  // one whole line of the message
};

class BadConfig : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadConfig, IsRefusedWithItsPosition) {
  const Status status = parse_status(GetParam().yaml);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), GetParam().expected);
}

const std::string kGood = "backbone: {path: m}\n";

INSTANTIATE_TEST_SUITE_P(
    Table, BadConfig,
    ::testing::Values(
        BadCase{"empty", "", "d.yaml:1:1: found an empty file (expected a map)"},
        BadCase{"list", "- a\n", "d.yaml:1:1: found a list (expected a map of keys)"},
        BadCase{"no_backbone", "threads: 2\n",
                "d.yaml:1:1: backbone.path: missing (expected the directory of a checkpoint)"},
        BadCase{"no_path", "backbone:\n  precision: f32\n",
                "d.yaml:2:3: backbone.path: missing (expected the directory of a checkpoint)"},
        BadCase{"format", "chimera: deployment/2\n" + kGood,
                "d.yaml:1:10: chimera: found deployment/2 (expected deployment/1)"},
        BadCase{"zero", kGood + "serve:\n  max_sequences: 0\n",
                "d.yaml:3:18: serve.max_sequences: found 0 (expected 1..1024)"},
        BadCase{"negative", kGood + "serve: {max_queue: -1}\n",
                "d.yaml:2:20: serve.max_queue: found -1 (expected 1..65536)"},
        BadCase{"huge", kGood + "serve: {max_context: 99999999999999999999999}\n",
                "d.yaml:2:22: serve.max_context: found 99999999999999999999999 "
                "(expected 1..1048576)"},
        BadCase{"float", kGood + "serve: {max_context: 1.5}\n",
                "d.yaml:2:22: serve.max_context: found 1.5 (expected a whole number in "
                "1..1048576)"},
        BadCase{"hex", kGood + "threads: 0x10\n",
                "d.yaml:2:10: threads: found 0x10 (expected auto or 1..256)"},
        BadCase{"quoted_number", kGood + "serve: {max_context: \"16\"}\n",
                "d.yaml:2:22: serve.max_context: found \"16\" (expected a whole number in "
                "1..1048576)"},
        BadCase{"boolean", kGood + "serve: {prefix_cache: yes}\n",
                "d.yaml:2:23: serve.prefix_cache: found yes (expected true or false)"},
        BadCase{"speculative", kGood + "serve: {speculative: yes}\n",
                "d.yaml:2:22: serve.speculative: found yes (expected none or ngram)"},
        BadCase{"null_value", kGood + "serve: {max_context: }\n",
                "d.yaml:2:22: serve.max_context: found nothing (expected a whole number in "
                "1..1048576)"},
        BadCase{"map_for_scalar", "backbone: {path: {a: b}}\n",
                "d.yaml:1:18: backbone.path: found a map (expected the directory of a "
                "checkpoint)"},
        BadCase{"number_for_path", "backbone: {path: 12}\n",
                "d.yaml:1:18: backbone.path: found 12 (expected the directory of a checkpoint)"},
        BadCase{"empty_path", "backbone: {path: \"\"}\n",
                "d.yaml:1:18: backbone.path: found \"\" (expected the directory of a checkpoint)"},
        BadCase{"typo", kGood + "serve: {max_sequence: 4}\n",
                "d.yaml:2:9: serve.max_sequence: unknown key (did you mean max_sequences?)"},
        BadCase{"unknown", kGood + "control: {colour: red}\n",
                "d.yaml:2:11: control.colour: unknown key (expected endpoint)"},
        BadCase{"merge_key", kGood + "serve: {<<: 4}\n",
                "d.yaml:2:9: serve.<<: unknown key (expected endpoint, insecure, max_sequences, "
                "max_context, "
                "max_queue, max_events, prefill_chunk, max_live_epochs, prefix_cache, "
                "step_target_ms, speculative)"},
        BadCase{"duplicate", kGood + "threads: 2\nthreads: 3\n",
                "d.yaml:3:1: key \"threads\" found twice (expected once; first on line 2)"},
        BadCase{"weight", kGood + "composition: {modules: [{path: a, weight: 0}]}\n",
                "d.yaml:2:43: composition.modules[0].weight: found 0 (expected above 0, up to "
                "1000000)"},
        BadCase{"precision", "backbone: {path: m, precision: f16}\n",
                "d.yaml:1:32: backbone.precision: found f16 (expected f32, bf16, q8 or q4)"},
        BadCase{"precision_of_class", "backbone: {path: m, precision: {head: 8}}\n",
                "d.yaml:1:39: backbone.precision.head: found 8 (expected f32, bf16, q8 or q4)"},
        BadCase{"precision_class", "backbone: {path: m, precision: {gate: q8}}\n",
                "d.yaml:1:33: backbone.precision.gate: unknown key (expected experts, attention, "
                "head)"},
        BadCase{"bias", kGood + "composition: {modules: [{path: a, bias: 101}]}\n",
                "d.yaml:2:41: composition.modules[0].bias: found 101 (expected -100..100)"},
        BadCase{"bias_nan", kGood + "composition: {modules: [{path: a, bias: .nan}]}\n",
                "d.yaml:2:41: composition.modules[0].bias: found .nan (expected a number in "
                "-100..100)"},
        BadCase{"module_twice", kGood + "composition: {modules: [{path: a}, {path: ./b/../a}]}\n",
                "d.yaml:2:43: composition.modules[1].path: found ./b/../a (expected a module that "
                "is not listed above)"},
        BadCase{"module_without_path", kGood + "composition: {modules: [{bias: 1}]}\n",
                "d.yaml:2:25: composition.modules[0].path: missing (expected the directory of a "
                "module)"},
        BadCase{"top_k", kGood + "composition: {top_k: 0}\n",
                "d.yaml:2:22: composition.top_k: found 0 (expected 1..64)"},
        BadCase{"kv_format", kGood + "memory: {kv_format: q8}\n",
                "d.yaml:2:21: memory.kv_format: found q8 (expected f32, f16 or bf16)"},
        BadCase{"pin_limit", kGood + "memory: {pin_limit: long}\n",
                "d.yaml:2:21: memory.pin_limit: found long (expected none or 1..86400 seconds)"},
        BadCase{"pinned", kGood + "memory: {pin_limit: 9, pinned: wait}\n",
                "d.yaml:2:32: memory.pinned: found wait (expected restart or end)"},
        BadCase{"pinned_alone", kGood + "memory: {pinned: end}\n",
                "d.yaml:2:18: memory.pinned: found end (expected it beside pin_limit alone)"},
        BadCase{"in_process", kGood + "libraries: {in_process: yes}\n",
                "d.yaml:2:25: libraries.in_process: found yes (expected allow or refuse)"},
        BadCase{"max_deadline", kGood + "libraries: {max_deadline_ms: 0}\n",
                "d.yaml:2:30: libraries.max_deadline_ms: found 0 (expected 1..3600000)"},
        BadCase{
            "max_load", kGood + "libraries: {max_load_ms: 1s}\n",
            "d.yaml:2:26: libraries.max_load_ms: found 1s (expected a whole number in 1..3600000)"},
        BadCase{"max_memory", kGood + "libraries: {max_memory: much}\n",
                "d.yaml:2:25: libraries.max_memory: found much (expected auto, or a size "
                "such as 512MiB or 4GiB)"},
        BadCase{"threads", kGood + "threads: many\n",
                "d.yaml:2:10: threads: found many (expected auto or 1..256)"},
        BadCase{"threads_range", kGood + "threads: 257\n",
                "d.yaml:2:10: threads: found 257 (expected 1..256)"},
        BadCase{"watch", kGood + "watch: /srv\n",
                "d.yaml:2:8: watch: found /srv (expected a list of at most 64 directories)"},
        BadCase{"same_endpoint",
                kGood + "serve: {endpoint: \"ipc:///a\"}\ncontrol: {endpoint: \"ipc:///a\"}\n",
                "d.yaml:3:21: control.endpoint: found \"ipc:///a\" (expected another endpoint than "
                "serve.endpoint)"},
        BadCase{"anchor", "backbone: &b {path: m}\n",
                "d.yaml:1:11: found an anchor (expected none)"},
        BadCase{"tag", kGood + "threads: !!int 4\n",
                "d.yaml:2:10: found the tag \"tag:yaml.org,2002:int\" (expected none)"},
        BadCase{"tab", "backbone:\n\tpath: m\n",
                "d.yaml:2:1: found a tab in the indentation (expected spaces)"},
        BadCase{"control_byte", "backbone: {path: \"a\x01\"}\n",
                "d.yaml:1:20: found byte 0x01 (expected UTF-8 text without control characters)"},
        BadCase{"two_documents", kGood + "---\nthreads: 1\n",
                "d.yaml:3:1: found a second document (expected one)"},
        BadCase{"list_key", kGood + "serve: {[a]: 4}\n",
                "d.yaml:2:9: found a list as a key (expected a word)"}),
    [](const auto& tested) { return tested.param.name; });

TEST(Config, PrecisionForAllOrByClass) {
  const auto precision = [](const std::string& text) {
    const auto config =
        parse_deployment("backbone: {path: m, precision: " + text + "}\n", "d.yaml", "/base");
    EXPECT_TRUE(config.ok()) << config.status().to_string();
    return config->backbone.precision;
  };
  EXPECT_EQ(precision("bf16"), PrecisionPlan());
  EXPECT_EQ(precision("q8").head, Precision::kQ8);
  EXPECT_EQ(precision("q4").experts, Precision::kQ4);
  EXPECT_EQ(precision("q4").attention, Precision::kQ8);
  const PrecisionPlan mixed = precision("{experts: q4, head: q8}");
  EXPECT_EQ(mixed.experts, Precision::kQ4);
  EXPECT_EQ(mixed.attention, Precision::kF32);
  EXPECT_EQ(mixed.head, Precision::kQ8);
  EXPECT_EQ(mixed.name(), "experts q4, attention f32, head q8");
  EXPECT_EQ(precision("q4").name(), "q4");
}

TEST(Config, AllProblemsAtOnceInFileOrder) {
  const Status status = parse_status(
      "backbone: {path: m, precision: q2}\n"
      "serve:\n"
      "  max_sequences: 0\n"
      "  bogus: 1\n"
      "  endpoint: tcp://0.0.0.0:1\n"
      "threads: none\n");
  const std::string& text = status.message();
  const size_t lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  EXPECT_EQ(lines, 5u) << text;
  size_t last = 0;
  for (const char* where :
       {"d.yaml:1:32:", "d.yaml:3:18:", "d.yaml:4:3:", "d.yaml:5:13:", "d.yaml:6:10:"}) {
    const size_t at = text.find(where);
    ASSERT_NE(at, std::string::npos) << where << "\n" << text;
    EXPECT_GE(at, last);
    last = at;
  }
}

TEST(Config, SyntaxErrorsCarryAPosition) {
  const Status status = parse_status("backbone: {path: m\nthreads: 2\n");
  EXPECT_THAT(status.message(), HasSubstr("not YAML: "));
  EXPECT_EQ(status.message().rfind("d.yaml:", 0), 0u);
}

/// Of this process: neighbours do not count.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(Config, AliasBombIsRefusedAtOnce) {
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'z'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i ? ", *" : "*") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  const double start = cpu_seconds();
  const Status status = parse_status(bomb);
  EXPECT_THAT(status.message(), HasSubstr("(expected none)"));
  EXPECT_LT(cpu_seconds() - start, 60);
}

TEST(Config, DepthAndSizeAreBounded) {
  EXPECT_THAT(parse_status("backbone: " + std::string(100000, '[')).message(),
              HasSubstr("found nesting deeper than 32"));
  EXPECT_THAT(parse_status(std::string((1u << 20) + 1, ' ')).message(),
              HasSubstr("found 1048577 bytes (expected at most 1048576)"));
  std::string wide = "backbone: {";
  for (int i = 0; i < 100000; ++i) wide += "k" + std::to_string(i) + ": 1, ";
  const double start = cpu_seconds();
  EXPECT_THAT(parse_status(wide.substr(0, 1000000)).message(), HasSubstr("found more than"));
  EXPECT_LT(cpu_seconds() - start, 60);
  // Exactly 32 levels: the complaint is about the value, not the depth.
  const std::string deep = "backbone: " + std::string(31, '[') + std::string(31, ']') + "\n";
  EXPECT_THAT(parse_status(deep).message(), HasSubstr("backbone: found a list"));
}

TEST(Config, Endpoints) {
  const auto with = [](const std::string& endpoint) {
    return parse_status(kGood + "serve:\n  endpoint: \"" + endpoint + "\"\n");
  };
  for (const char* good : {"ipc:///run/x.sock", "ipc://x.sock"}) {
    EXPECT_TRUE(with(good).ok()) << with(good).to_string();
  }
  const auto with_keys = [](const std::string& section, const std::string& endpoint) {
    return parse_status(kGood + section + ": {endpoint: \"" + endpoint +
                        "\"}\nsecurity: {key: k, clients: c}\n");
  };
  for (const char* tcp :
       {"tcp://127.0.0.1:1", "tcp://127.8.9.1:65535", "tcp://localhost:80", "tcp://*:5555",
        "tcp://0.0.0.0:5555", "tcp://192.168.1.1:5", "tcp://[::1]:5", "tcp://[::]:5"}) {
    EXPECT_TRUE(with_keys("serve", tcp).ok()) << with_keys("serve", tcp).to_string();
    EXPECT_TRUE(with_keys("control", tcp).ok()) << tcp;
    // Loopback too: every user of the machine reaches it.
    EXPECT_THAT(with(tcp).message(), HasSubstr("neither encryption nor authentication")) << tcp;
    EXPECT_FALSE(parse_status(kGood + "control: {endpoint: \"" + tcp + "\"}\n").ok()) << tcp;
  }
  EXPECT_FALSE(with_keys("serve", "tcp://eth0:5").ok());
  EXPECT_FALSE(with_keys("serve", "tcp://::1:5").ok());
  for (const char* bad :
       {"tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://192.168.1.1:5", "tcp://eth0:5555",
        "tcp://example.org:5", "tcp://128.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536", "tcp://127.0.0.1:*", "tcp://:5", "udp://127.0.0.1:5", "inproc://x",
        "ipc://", "ipc://*", "ipc://@abstract", "ipc:///dir/", "5555"}) {
    const Status status = with(bad);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(status.message(), HasSubstr("d.yaml:3:13: serve.endpoint: found ")) << bad;
    EXPECT_THAT(status.message(), HasSubstr("(expected ")) << bad;
  }
  EXPECT_THAT(with("tcp://10.0.0.1:5").message(), HasSubstr("encryption"));
  EXPECT_TRUE(with("ipc:///" + std::string(106, 'a')).ok());
  EXPECT_THAT(with("ipc:///" + std::string(107, 'a')).message(),
              HasSubstr("found a socket path of 108 bytes (expected at most 107"));
}

TEST(Config, CompositionAlone) {
  const auto plain = parse_composition("top_k: 2\nmodules: [{path: a, bias: 1e-1}]\n", "c", "/b");
  ASSERT_TRUE(plain.ok()) << plain.status().to_string();
  EXPECT_EQ(plain->top_k, 2);
  ASSERT_EQ(plain->modules.size(), 1u);
  EXPECT_EQ(plain->modules[0].path, "/b/a");
  EXPECT_EQ(plain->modules[0].bias, 0.1f);

  const auto json =
      parse_composition(R"({"modules":[{"path":"/m\/legal","enabled":false}]})", "composition", "");
  ASSERT_TRUE(json.ok()) << json.status().to_string();
  EXPECT_EQ(json->modules[0].path, "/m/legal");
  EXPECT_FALSE(json->modules[0].enabled);

  const auto block = parse_composition("composition: {modules: [{path: a}]}\n", "c", "/b");
  ASSERT_TRUE(block.ok());
  EXPECT_EQ(block->modules.size(), 1u);

  const auto whole = parse_composition(
      "backbone: {path: x}\ncomposition: {top_k: 1}\nserve: {max_queue: 3}\n", "c", "/b");
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  EXPECT_EQ(whole->top_k, 1);

  EXPECT_TRUE(parse_composition("{}", "c", "").ok());
  EXPECT_THAT(
      parse_composition("{\"modules\": [{\"path\": \"rel\"}]}", "composition", "")
          .status()
          .message(),
      HasSubstr("composition:1:23: modules[0].path: found \"rel\" (expected an absolute path)"));
  EXPECT_THAT(parse_composition("moduls: []", "c", "").status().message(),
              HasSubstr("did you mean modules?"));
}

TEST(Config, ShippedDeploymentsAreRead) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".yaml") continue;
    std::ifstream file(entry.path());
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    if (text.find("chimera: deployment/1") == std::string::npos) continue;  // of another program
    ++count;
    const auto config = read_deployment(entry.path().string());
    EXPECT_TRUE(config.ok()) << config.status().to_string();
  }
  EXPECT_GE(count, 3u);
  const auto demo = read_deployment(kConfigs + "/demo.yaml");
  ASSERT_TRUE(demo.ok());
  EXPECT_EQ(demo->backbone.path,
            fs::path(CHIMERA_SOURCE_DIR "/experts/backbone").lexically_normal());
  EXPECT_TRUE(demo->composition.modules.empty());
}

TEST(Config, MissingFileIsNamed) {
  const auto config = read_deployment("/nonexistent/x.yaml");
  EXPECT_EQ(config.status().code(), Code::kNotFound);
  EXPECT_THAT(config.status().message(), HasSubstr("/nonexistent/x.yaml"));
}

TEST(Config, DefaultsMeetInAPrivateDirectory) {
  const std::string dir = temp_dir();
  setenv("XDG_RUNTIME_DIR", dir.c_str(), 1);
  setenv("XDG_STATE_HOME", dir.c_str(), 1);
  DeploymentConfig config;
  ASSERT_TRUE(fill_defaults(&config).ok());
  EXPECT_EQ(config.serve.endpoint, "ipc://" + dir + "/chimera/serve.sock");
  EXPECT_EQ(config.control.endpoint, "ipc://" + dir + "/chimera/control.sock");
  EXPECT_EQ(config.state_dir, dir + "/chimera");
  struct stat info {};
  ASSERT_EQ(stat((dir + "/chimera").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);

  chmod((dir + "/chimera").c_str(), 0755);
  EXPECT_EQ(default_runtime_dir().status().code(), Code::kPermissionDenied);
  fs::remove(dir + "/chimera");
  fs::create_directory_symlink("/tmp", dir + "/chimera");
  EXPECT_EQ(default_runtime_dir().status().code(), Code::kFailedPrecondition);
  fs::remove(dir + "/chimera");
  std::ofstream(dir + "/chimera") << "file";
  EXPECT_EQ(default_runtime_dir().status().code(), Code::kFailedPrecondition);
  fs::remove_all(dir);
}

// Random edits of a good file: any outcome but a crash or a hang, and errors keep their form.
TEST(Config, SurvivesRandomEdits) {
  std::ifstream in(kConfigs + "/server.yaml");
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  uint64_t state = 20240607;
  SCOPED_TRACE("seed 20240607");
  const auto next = [&] {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
  };
  const std::string marks = "{}[]:,&*!|>%@`\"'#-? \n\t0a~<\\\xff";
  for (int i = 0; i < 500; ++i) {
    std::string text = good;
    for (uint64_t edits = next() % 6 + 1; edits > 0; --edits) {
      const size_t at = next() % text.size();
      switch (next() % 3) {
        case 0:
          text[at] = marks[next() % marks.size()];
          break;
        case 1:
          text.insert(at, 1, marks[next() % marks.size()]);
          break;
        default:
          text.erase(at, next() % 40 + 1);
          break;
      }
    }
    const auto config = parse_deployment(text, "d.yaml", "/base");
    if (!config.ok()) {
      EXPECT_EQ(config.status().message().rfind("d.yaml:", 0), 0u) << config.status().message();
    }
  }
}

}  // namespace
}  // namespace chimera
