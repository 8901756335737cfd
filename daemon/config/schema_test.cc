// configs/deployment.schema.json says the same as the reader of deployments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/json/testing.h"
#include "daemon/config/config.h"
#include "daemon/config/keys.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

const std::string kConfigs = CHIMERA_SOURCE_DIR "/configs";
const std::string kGood = "backbone: {path: m}\n";

std::string temp_dir() {
  std::string name = fs::temp_directory_path() / "chimera-config-XXXXXX";
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  return name;
}

Status parse_status(const std::string& yaml) {
  return parse_deployment(yaml, "d.yaml", "/base").status();
}

// Collects dotted keys of a JSON Schema, following local references.
void schema_keys(const Json& root, Json node, const std::string& prefix,
                 std::map<std::string, Json>* out) {
  if (node.contains("$ref")) {
    const Json* target = &root;  // "#/definitions/…"
    std::istringstream path(node.value("$ref", ""));
    std::string step;
    std::getline(path, step, '/');
    while (std::getline(path, step, '/')) target = &(*target)[step];
    node = *target;
  }
  if (node.contains("properties")) {
    for (const auto& [key, child] : node["properties"].items()) {
      (*out)[prefix + key] = child;
      schema_keys(root, child, prefix + key + ".", out);
    }
  }
  if (node.contains("items")) {
    schema_keys(root, node["items"], prefix.substr(0, prefix.size() - 1) + "[].", out);
  }
}

Json schema() {
  std::ostringstream text;
  text << std::ifstream(kConfigs + "/deployment.schema.json").rdbuf();
  return json_of(text.str());
}

TEST(ConfigSchema, HasExactlyTheKeysOfTheReader) {
  const Json root = schema();
  std::map<std::string, Json> found;
  schema_keys(root, root, "", &found);
  std::set<std::string> names;
  for (const auto& [name, node] : found) names.insert(name);
  const auto keys = deployment_keys();
  EXPECT_EQ(names, std::set<std::string>(keys.begin(), keys.end()));
}

TEST(ConfigSchema, RangesAndDefaultsAreThoseOfTheReader) {
  const Json root = schema();
  const auto config = parse_deployment(kGood, "d.yaml", "/b");
  ASSERT_TRUE(config.ok());
  const std::map<std::string, int64_t> defaults = {
      {"max_sequences", config->serve.max_sequences},
      {"max_context", config->serve.max_context},
      {"max_queue", config->serve.max_queue},
      {"max_events", config->serve.max_events},
      {"prefill_chunk", config->serve.prefill_chunk},
      {"step_target_ms", config->serve.step_target_ms},
      {"max_live_epochs", config->serve.max_live_epochs}};
  for (const auto& [key, value] : defaults) {
    const auto& node = root["properties"]["serve"]["properties"][key];
    EXPECT_EQ(node["default"], value) << key;
    const auto accepts = [&](int64_t v) {
      return parse_status(kGood + "serve: {" + key + ": " + std::to_string(v) + "}\n").ok();
    };
    const auto min = node.value("minimum", int64_t{0}), max = node.value("maximum", int64_t{0});
    EXPECT_TRUE(accepts(min) && accepts(max)) << key;
    EXPECT_FALSE(accepts(min - 1) || accepts(max + 1)) << key;
  }
}

std::string run(const std::string& command, int* exit_status) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::string out;
  char buffer[4096];
  while (size_t n = fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, n);
  *exit_status = pclose(pipe);
  return out;
}

TEST(ConfigSchema, AgreesWithTheReaderOnFiles) {
  int exit_status = 0;
  run("/usr/bin/python3 -c 'import jsonschema, yaml'", &exit_status);
  if (exit_status != 0) GTEST_SKIP() << "python3-jsonschema and python3-yaml are not installed";
  const std::string dir = temp_dir();
  struct Case {
    std::string yaml;
    bool good;
  };
  const Case cases[] = {
      {kGood, true},
      {kGood + "watch:\ncomposition: {modules: }\nthreads: auto\n", true},
      {kGood + "serve: {endpoint: tcp://127.0.0.1:5555}\n", false},
      {kGood + "serve: {endpoint: tcp://127.0.0.1:5555, insecure: loopback}\n", true},
      {kGood + "serve: {endpoint: tcp://0.0.0.0:5555, insecure: loopback}\n", false},
      {kGood + "serve: {endpoint: tcp://0.0.0.0:5555, insecure: yes}\n", false},
      {kGood + "serve: {endpoint: ipc:///run/s, insecure: loopback}\n", false},
      {kGood + "serve: {endpoint: \"tcp://*:1\"}\nsecurity: {key: k, clients: c}\n", true},
      {kGood + "serve: {endpoint: \"tcp://[::1]:1\"}\nsecurity: {key: k, clients: c}\n", true},
      {kGood + "control: {endpoint: \"tcp://0.0.0.0:1\"}\nsecurity: {key: k, clients: c}\n", true},
      {kGood + "control: {endpoint: \"tcp://127.0.0.1:1\"}\nsecurity: {key: k}\n", false},
      {kGood + "control: {endpoint: \"tcp://127.0.0.1:1\"}\n", false},
      {kGood + "control: {endpoint: ipc:///run/c, insecure: loopback}\n", false},
      {kGood + "serve: {insecure: loopback}\n", false},
      {kGood + "security: {keys: k}\n", false},
      {kGood + "trust: {keys: k, require: signed, minimum: {legal: 1.2.0, bio: 2}}\n", true},
      {kGood + "trust: {require: any}\n", true},
      {kGood + "trust: {roots: [/srv/modules]}\n", true},
      {kGood + "trust: {roots: []}\n", false},
      {kGood + "trust: {roots: /srv/modules}\n", false},
      {kGood + "trust: {require: signed}\n", false},
      {kGood + "trust: {require: all}\n", false},
      {kGood + "trust: {minimum: [legal]}\n", false},
      {kGood + "composition: {modules: [{path: a, bias: -100, enabled: false}]}\n", true},
      {kGood + "memory: {budget: 4GiB, kv: 512 MiB}\n", true},
      {kGood + "memory: {budget: auto, kv: auto}\n", true},
      {kGood + "memory: {gate_samples: none}\n", true},
      {kGood + "memory: {gate_samples: 16MiB}\n", true},
      {kGood + "memory: {adapters: none}\n", true},
      {kGood + "memory: {adapters: 2GiB}\n", true},
      {kGood + "memory: {adapters: all}\n", false},
      {kGood + "memory: {evict_replaced: true}\n", true},
      {kGood + "memory: {evict_replaced: sometimes}\n", false},
      {kGood + "serve: {speculative: ngram}\n", true},
      {kGood + "serve: {speculative: draft}\n", false},
      {kGood + "memory: {pin_limit: 30, pinned: end}\n", true},
      {kGood + "memory: {pin_limit: none, pinned: restart}\n", true},
      {kGood + "memory: {pinned: end}\n", false},
      {kGood + "memory: {pin_limit: 0}\n", false},
      {kGood + "memory: {pin_limit: 86401}\n", false},
      {kGood + "memory: {pin_limit: auto}\n", false},
      {kGood + "memory: {pin_limit: 5, pinned: wait}\n", false},
      {kGood + "canary: {after: 1, error_rate: 0, ms_per_token: 10.5, bits_per_byte: 2}\n", true},
      {kGood + "canary: {}\n", true},
      {kGood + "canary: {after: 0}\n", false},
      {kGood + "canary: {error_rate: 1.5}\n", false},
      {kGood + "canary: {bits_per_byte: none}\n", false},
      {kGood + "canary: {fraction: 0.1}\n", false},
      {kGood + "memory: {budget: 4GB}\n", false},
      {kGood + "memory: {gate_samples: 0}\n", false},
      {kGood + "memory: {budget: 0GiB}\n", false},
      {kGood + "memory: {budget: 4294967296}\n", false},
      {kGood + "memory: {kv: -1GiB}\n", false},
      {kGood + "memory: {cache: 1GiB}\n", false},
      {"threads: 2\n", false},
      {kGood + "serve: {max_sequences: 0}\n", false},
      {kGood + "serve: {max_sequence: 1}\n", false},
      {kGood + "serve: {max_sequences: \"4\"}\n", false},
      {kGood + "serve: {endpoint: \"tcp://0.0.0.0:1\"}\n", false},
      {kGood + "serve: {endpoint: \"tcp://*:1\"}\n", false},
      {kGood + "threads: 0\n", false},
      {kGood + "composition: {modules: [{bias: 1}]}\n", false},
      {kGood + "composition: {modules: [{path: a, bias: 101}]}\n", false},
      {"backbone: {path: m, precision: q8}\n", true},
      {kGood + "composition: {modules: [{path: a, weight: 0.5}]}\n", true},
      {kGood + "composition: {modules: [{path: a, weight: 0}]}\n", false},
      {kGood + "composition: {modules: [{path: a, weight: 2000000}]}\n", false},
      {"backbone: {path: m, precision: {experts: q4, head: f32}}\n", true},
      {"backbone: {path: m, precision: {experts: q5}}\n", false},
      {"backbone: {path: m, precision: {gate: f32}}\n", false},
      {"backbone: {path: 5}\n", false},
      {"chimera: deployment/2\n" + kGood, false}};
  for (size_t i = 0; i < std::size(cases); ++i) {
    std::ofstream(dir + "/" + std::to_string(i) + (cases[i].good ? ".good" : ".bad"))
        << cases[i].yaml;
    EXPECT_EQ(parse_status(cases[i].yaml).ok(), cases[i].good) << cases[i].yaml;
  }
  std::ofstream(dir + "/check.py") << R"(
import glob, json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1] + "/deployment.schema.json"))
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
for name in glob.glob(sys.argv[1] + "/*.yaml") + glob.glob(sys.argv[2] + "/*.good"):
    document = yaml.safe_load(open(name))
    if document.get("chimera", "deployment/1").startswith("gateway/"): continue
    for error in validator.iter_errors(document):
        sys.exit(f"{name}: {error.message}")
bad = glob.glob(sys.argv[2] + "/*.bad")
assert len(bad) > 5
for name in bad:
    if validator.is_valid(yaml.safe_load(open(name))):
        sys.exit(f"{name}: accepted: {open(name).read()}")
)";
  const std::string out =
      run("/usr/bin/python3 " + dir + "/check.py " + kConfigs + " " + dir, &exit_status);
  EXPECT_EQ(exit_status, 0) << out;
  fs::remove_all(dir);
}

}  // namespace
}  // namespace chimera
