// Reading module.yaml: the good, and a table of the bad with what the error must name.
#include "experts/module/manifest.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace chimera {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string good() {
  return fmt::format(R"(# comment
chimera: module/1
name: legal
version: 1.2.0
domain: legal
description: Contracts, statutes and court opinions
license: CC-BY-4.0
kind: weights                # weights | library
attach: append               # append | replace
backbone:
  fingerprint: {0}
  hidden_size: 256
layers: [0, 2]
files:
  - path: weights.safetensors
    sha256: {0}
routing: {{top_k: 2}}
provenance:
  data:
    - source: wikipedia (legal)
      license: CC-BY-SA-4.0
    - EDGAR
  parents: []
probe:
  text: "The parties agree that …"
  max_bits_per_byte: 1.9
)",
                     kDigest);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Manifest, ReadsEveryField) {
  const auto m = parse_manifest(good(), "module.yaml");
  ASSERT_TRUE(m.ok()) << m.status().to_string();
  EXPECT_EQ(m->name, "legal");
  EXPECT_EQ(m->version, "1.2.0");
  EXPECT_EQ(m->description, "Contracts, statutes and court opinions");
  EXPECT_EQ(m->license, "CC-BY-4.0");
  EXPECT_EQ(m->kind, ModuleKind::kWeights);
  EXPECT_EQ(m->attach, Attach::kAppend);
  EXPECT_EQ(m->backbone_fingerprint, kDigest);
  EXPECT_EQ(m->hidden_size, 256);
  EXPECT_EQ(*m->layers, (std::vector<int64_t>{0, 2}));
  ASSERT_EQ(m->files.size(), 1u);
  EXPECT_EQ(m->files[0].path, "weights.safetensors");
  EXPECT_EQ(m->files[0].sha256, kDigest);
  ASSERT_EQ(m->data_sources.size(), 2u);
  const std::string source = "{\"source\": \"wikipedia (legal)\", \"license\": \"CC-BY-SA-4.0\"}";
  EXPECT_EQ(m->data_sources[0], source);
  EXPECT_EQ(m->data_sources[1], "EDGAR");
  EXPECT_EQ(m->top_k, 2);
  EXPECT_EQ(m->probe_text, "The parties agree that …");
  EXPECT_EQ(*m->probe_max_bits_per_byte, 1.9);
  EXPECT_TRUE(m->digest.starts_with("sha256:"));
}

TEST(Manifest, FittedForWhatItSaysElseForWhatItWasCutFrom) {
  Manifest m;
  EXPECT_FALSE(m.fitted_top_k().has_value());
  m.original_top_k = 6;
  EXPECT_EQ(m.fitted_top_k(), 6);
  m.top_k = 2;
  EXPECT_EQ(m.fitted_top_k(), 2);
  for (const char* bad : {"0", "65", "two", "2.5", "[2]"}) {
    const auto refused = parse_manifest(
        replaced(good(), "{top_k: 2}", "{top_k: " + std::string(bad) + "}"), "module.yaml");
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_NE(refused.status().message().find("routing.top_k"), std::string::npos)
        << refused.status().to_string();
  }
}

TEST(Manifest, DigestNamesTheBytes) {
  const auto a = parse_manifest(good(), "a");
  const auto b = parse_manifest(good() + "# another comment\n", "b");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_NE(a->digest, b->digest);
}

TEST(Manifest, WrittenTextReadsBackTheSame) {
  auto m = parse_manifest(good(), "module.yaml");
  ASSERT_TRUE(m.ok());
  m->description = "quotes \" and: colons # and\ttabs";
  m->name = "0123";
  m->version = "1.0";
  m->original_slots = {{0, {1, 3}}, {2, {4}}};
  m->original_top_k = 5;
  m->precision = Precision::kQ8;
  m->parents = {"{\"digest\": \"x\", \"lambda\": \"0.5\"}"};
  const std::string yaml = manifest_yaml(*m);
  const auto again = parse_manifest(yaml, "again");
  ASSERT_TRUE(again.ok()) << again.status().to_string() << "\n" << yaml;
  EXPECT_EQ(again->description, m->description);
  EXPECT_EQ(again->name, "0123");
  EXPECT_EQ(again->version, "1.0");
  EXPECT_EQ(again->original_slots, m->original_slots);
  EXPECT_EQ(again->original_top_k, m->original_top_k);
  EXPECT_EQ(again->top_k, m->top_k);
  EXPECT_EQ(again->precision, Precision::kQ8);
  EXPECT_EQ(again->parents, m->parents);
  EXPECT_EQ(again->data_sources, m->data_sources);
  EXPECT_EQ(again->layers, m->layers);
  EXPECT_EQ(again->probe_text, m->probe_text);
  EXPECT_EQ(manifest_yaml(*again), yaml);
}

TEST(Manifest, AssembliesNameTheirParents) {
  const std::string digest = "sha256:" + std::string(64, 'c');
  const std::string assembly = replaced(good(), "kind: weights", "kind: assembly");
  const std::string recipe = replaced(assembly, "weights.safetensors", "recipe.yaml");
  const std::string block = "assembly:\n  parents:\n    - {path: ../a b, digest: " + digest + "}\n";
  const auto m = parse_manifest(recipe + block, "m.yaml");
  ASSERT_TRUE(m.ok()) << m.status().to_string();
  EXPECT_EQ(m->kind, ModuleKind::kAssembly);
  EXPECT_EQ(m->assembly->recipe, "recipe.yaml");
  ASSERT_EQ(m->assembly->parents.size(), 1u);
  EXPECT_EQ(m->assembly->parents[0].path, "../a b");
  EXPECT_EQ(m->assembly->parents[0].digest, digest);
  const auto again = parse_manifest(manifest_yaml(*m), "again");
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(manifest_yaml(*again), manifest_yaml(*m));

  for (const auto& [text, message] : {
           std::pair{good() + block, "assembly: found it in a module of kind weights"},
           std::pair{recipe, "assembly: found nothing (expected the recipe and its parents)"},
           std::pair{assembly + block, "assembly.recipe: found nothing"},
           std::pair{recipe + "assembly: {recipe: other.yaml, parents: []}\n",
                     "assembly.recipe: found \"other.yaml\" (expected the path of one of `files`)"},
           std::pair{recipe + "assembly: {parents: []}\n", "assembly.parents: found"},
           std::pair{recipe + "assembly: {parents: [{path: a}]}\n", "found no key digest"},
           std::pair{recipe + "assembly: {parents: [{path: a, digest: x}]}\n",
                     "assembly.parents.digest: found \"x\" (expected sha256:"},
       }) {
    const auto bad = parse_manifest(text, "m.yaml");
    ASSERT_FALSE(bad.ok()) << message;
    EXPECT_NE(bad.status().message().find(message), std::string::npos) << bad.status().to_string();
  }
  EXPECT_TRUE(parse_manifest(recipe + "assembly: {parents: [{path: a, digest: \"\"}]}\n", "m",
                             Sealing::kUnsealed)
                  .ok());
}

TEST(Manifest, BundlesNameTheirSharedTensors) {
  const std::string shared = "files:\n  - {path: shared.safetensors, sha256: " + kDigest + "}\n";
  const std::string plain = replaced(good(), "kind: weights", "kind: bundle");
  const std::string bundle = replaced(plain, "files:\n", shared);
  const auto by_default = parse_manifest(bundle, "m.yaml");
  ASSERT_TRUE(by_default.ok()) << by_default.status().to_string();
  EXPECT_EQ(by_default->kind, ModuleKind::kBundle);
  EXPECT_EQ(by_default->shared->file, "shared.safetensors");
  EXPECT_EQ(by_default->shared->weight, 1.0);
  const auto stated = parse_manifest(bundle + "shared: {weight: 2.5}\n", "m.yaml");
  ASSERT_TRUE(stated.ok()) << stated.status().to_string();
  EXPECT_EQ(stated->shared->weight, 2.5);
  const auto again = parse_manifest(manifest_yaml(*stated), "again");
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(manifest_yaml(*again), manifest_yaml(*stated));
  EXPECT_EQ(again->shared->weight, 2.5);

  for (const auto& [text, message] : {
           std::pair{good() + "shared: {weight: 1}\n",
                     "shared: found it in a module of kind weights"},
           std::pair{plain, "shared.file: found nothing"},
           std::pair{
               plain + "shared: {file: other.safetensors}\n",
               "shared.file: found \"other.safetensors\" (expected the path of one of `files`)"},
           std::pair{bundle + "shared: {weight: 0}\n", "shared.weight: found \"0\""},
           std::pair{bundle + "shared: {wheight: 1}\n", "unknown key \"wheight\""},
       }) {
    const auto bad = parse_manifest(text, "m.yaml");
    ASSERT_FALSE(bad.ok()) << message;
    EXPECT_NE(bad.status().message().find(message), std::string::npos) << bad.status().to_string();
  }
}

struct Bad {
  const char* name;
  const char* from;
  const char* to;
  const char* message;  // part of the error, with its place
};

class BadManifest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadManifest, IsRefusedWithPlaceAndExpectation) {
  const Bad& bad = GetParam();
  const auto m = parse_manifest(replaced(good(), bad.from, bad.to), "m.yaml");
  ASSERT_FALSE(m.ok());
  EXPECT_EQ(m.status().code(), Code::kInvalidArgument);
  EXPECT_NE(m.status().message().find(bad.message), std::string::npos) << m.status().message();
}

const Bad kBad[] = {
    {"schema", "module/1", "module/2",
     "m.yaml:2:10: chimera: found \"module/2\" (expected module/1)"},
    {"upper_case_name", "name: legal", "name: Legal", "m.yaml:3:7: name: found \"Legal\""},
    {"reserved_name", "name: legal", "name: backbone", "m.yaml:3:7: name: found \"backbone\""},
    {"name_with_slash", "name: legal", "name: ../legal", "m.yaml:3:7: name: found \"../legal\""},
    {"look_alike_name", "name: legal", "name: lеgal", "m.yaml:3:7: name:"},
    {"empty_name", "name: legal", "name: \"\"", "m.yaml:3:7: name: found \"\""},
    {"no_name", "name: legal\n", "", "m.yaml:2:1: module.yaml: found no key name (expected it)"},
    {"list_name", "name: legal", "name: [legal]", "m.yaml:3:7: name: found a list"},
    {"null_name", "name: legal", "name: ~", "name: found nothing"},
    {"version", "1.2.0", "\"1 2\"", "m.yaml:4:10: version: found \"1 2\""},
    {"kind", "kind: weights", "kind: adapter",
     "kind: found \"adapter\" (expected weights, library, lora, assembly or bundle)"},
    {"precision", "domain: legal", "precision: int8",
     "m.yaml:5:12: precision: found \"int8\" (expected f32, "},
    {"precision_of_a_library", "kind: weights", "precision: q8\nkind: library",
     "precision: found \"q8\" (expected it in a module of kind weights or assembly alone)"},
    {"attach", "attach: append", "attach: prepend", "(expected append or replace)"},
    {"unknown_key", "domain: legal", "domian: legal",
     "m.yaml:5:1: module.yaml: found the unknown key \"domian\""},
    {"duplicate_key", "domain: legal", "version: 1.3.0",
     "m.yaml:5:1: key \"version\" found twice (expected once; first on line 4)"},
    {"fingerprint", "fingerprint: sha256:aa", "fingerprint: sha256:AA",
     "backbone.fingerprint: found"},
    {"hidden_zero", "hidden_size: 256", "hidden_size: 0",
     "backbone.hidden_size: found \"0\" (expected an integer from 1"},
    {"hidden_negative", "hidden_size: 256", "hidden_size: -256",
     "backbone.hidden_size: found \"-256\""},
    {"hidden_float", "hidden_size: 256", "hidden_size: 256.0", "backbone.hidden_size"},
    {"hidden_quoted", "hidden_size: 256", "hidden_size: \"256\"", "backbone.hidden_size"},
    {"hidden_huge", "hidden_size: 256", "hidden_size: 99999999999999999999999",
     "backbone.hidden_size"},
    {"backbone_text", "backbone:\n", "backbone: x\nprobe2:\n",
     "backbone: found \"x\" (expected a map)"},
    {"layers_word", "layers: [0, 2]", "layers: some",
     "layers: found \"some\" (expected all, or a list"},
    {"layers_empty", "layers: [0, 2]", "layers: []", "layers: found a list"},
    {"layers_twice", "layers: [0, 2]", "layers: [2, 2]",
     "m.yaml:13:13: layers: found \"2\" (expected each number once"},
    {"layers_huge", "layers: [0, 2]", "layers: [0, 4096]", "layers: found \"4096\""},
    {"absolute_path", "path: weights", "path: /weights",
     "files.path: found \"/weights.safetensors\""},
    {"parent_path", "path: weights", "path: ../weights", "files.path: found"},
    {"inner_parent_path", "path: weights", "path: a/../weights", "files.path: found"},
    {"dot_path", "path: weights", "path: ./weights", "files.path: found"},
    {"nul_path", "path: weights.safetensors", "path: \"a\\0b\"", "files.path: found \"a\\x00b\""},
    {"look_alike_path", "path: weights", "path: weіghts", "files.path: found"},
    {"file_digest", "    sha256: sha256:", "    sha256: md5:", "files.sha256: found"},
    {"no_files", "  - path: weights.safetensors\n    sha256: sha256:", "  []\nversion2: sha256:",
     "files: found a list (expected a list of 1 to 64 files)"},
    {"probe_bound", "max_bits_per_byte: 1.9", "max_bits_per_byte: lots",
     "probe.max_bits_per_byte: found \"lots\""},
    {"probe_nan", "max_bits_per_byte: 1.9", "max_bits_per_byte: nan", "probe.max_bits_per_byte"},
    {"probe_infinite", "max_bits_per_byte: 1.9", "max_bits_per_byte: inf",
     "probe.max_bits_per_byte"},
    {"probe_negative", "max_bits_per_byte: 1.9", "max_bits_per_byte: -1",
     "probe.max_bits_per_byte"},
    {"bound_without_text", "  text: \"The parties agree that …\"\n", "",
     "max_bits_per_byte without text"},
    {"anchor", "name: legal", "name: &a legal", "m.yaml:3:7: found an anchor"},
    {"alias", "domain: legal", "domain: *a", "m.yaml:5:"},
    {"tag", "name: legal", "name: !!binary legal", "found the tag"},
    {"merge_key", "domain: legal", "<<: {a: b}", "unknown key \"<<\""},
    {"map_as_key", "domain: legal", "? {a: b}\n: c", "found a map as a key"},
    {"tab", "domain: legal", "\tdomain: legal", "m.yaml:5:"},
    {"second_document", "probe:\n", "---\nprobe:\n", "found a second document"},
    {"syntax", "domain: legal", "domain: [legal", "m.yaml:"},
    {"control_byte", "domain: legal", "domain: le\x01gal", "m.yaml:5:11: found byte 0x01"},
    {"broken_utf8", "domain: legal", "domain: le\xffgal", "m.yaml:5:11: found byte 0xff"},
    {"overlong_utf8", "domain: legal", "domain: le\xc0\xafgal", "found byte 0xc0"},
};

INSTANTIATE_TEST_SUITE_P(Table, BadManifest, ::testing::ValuesIn(kBad),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Manifest, AllProblemsAtOnce) {
  std::string text = replaced(good(), "name: legal", "name: LEGAL");
  text = replaced(text, "hidden_size: 256", "hidden_size: many");
  text = replaced(text, "layers: [0, 2]", "layers: none");
  const auto m = parse_manifest(text, "m.yaml");
  ASSERT_FALSE(m.ok());
  const std::string message = m.status().message();
  for (const char* part :
       {"m.yaml:3:7: name", "m.yaml:12:16: backbone.hidden_size", "m.yaml:13:9: layers"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 2);
}

TEST(Manifest, LimitsHold) {
  const auto too_long = parse_manifest(good() + std::string(kMaxManifestBytes, '#'), "m.yaml");
  EXPECT_EQ(too_long.status().code(), Code::kInvalidArgument);
  for (const size_t depth : {33u, 1000u, 100000u}) {
    const auto deep =
        parse_manifest("a: " + std::string(depth, '[') + std::string(depth, ']'), "m.yaml");
    ASSERT_FALSE(deep.ok());
    EXPECT_NE(deep.status().message().find("found nesting deeper than 32"), std::string::npos)
        << deep.status().message();
  }
  std::string many;
  for (int i = 0; i < 500; ++i) many += fmt::format("key{}: 1\n", i);
  const auto unknown = parse_manifest(many, "m.yaml");
  ASSERT_FALSE(unknown.ok());
  EXPECT_LT(unknown.status().message().size(), 20000u);
  EXPECT_NE(unknown.status().message().find("more problems"), std::string::npos);
  EXPECT_FALSE(parse_manifest("", "m.yaml").ok());
  EXPECT_FALSE(parse_manifest("- a\n- b\n", "m.yaml").ok());
}

TEST(Manifest, MessagesEscapeAndShortenWhatWasFound) {
  const std::string text =
      replaced(good(), "name: legal", "name: \"a\\e[31m" + std::string(500, 'x') + "\"");
  const auto m = parse_manifest(text, "m.yaml");
  ASSERT_FALSE(m.ok());
  EXPECT_EQ(m.status().message().find('\x1b'), std::string::npos);
  EXPECT_LT(m.status().message().size(), 400u);
}

TEST(Manifest, UnsealedMayLackDigestsOnly) {
  std::string text = replaced(good(), "  fingerprint: " + kDigest, "  fingerprint: PENDING");
  text = replaced(text, "    sha256: " + kDigest, "    sha256: \"\"");
  EXPECT_FALSE(parse_manifest(text, "m.yaml").ok());
  EXPECT_TRUE(parse_manifest(text, "m.yaml", Sealing::kUnsealed).ok());
  EXPECT_FALSE(parse_manifest(replaced(text, "legal", "LEGAL"), "m.yaml", Sealing::kUnsealed).ok());
}

TEST(Manifest, FileMustBePlainAndPresent) {
  std::string dir = (std::filesystem::temp_directory_path() / "chimera-XXXXXX").string();
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  EXPECT_EQ(read_manifest(dir).status().code(), Code::kNotFound);
  EXPECT_EQ(read_manifest(dir + "/absent").status().code(), Code::kNotFound);
  std::ofstream(dir + "/real.yaml") << good();
  std::filesystem::create_symlink("real.yaml", dir + "/module.yaml");
  EXPECT_EQ(read_manifest(dir).status().code(), Code::kPermissionDenied);
  std::filesystem::remove(dir + "/module.yaml");
  ASSERT_EQ(::mkfifo((dir + "/module.yaml").c_str(), 0600), 0);
  EXPECT_EQ(read_manifest(dir).status().code(), Code::kInvalidArgument);
  std::filesystem::remove(dir + "/module.yaml");
  std::filesystem::rename(dir + "/real.yaml", dir + "/module.yaml");
  const auto read = read_manifest(dir);
  EXPECT_TRUE(read.ok()) << read.status().to_string();
  std::filesystem::remove_all(dir);
}

TEST(Manifest, ModuleNames) {
  for (const char* name : {"a", "0", "legal", "legal-eu_2",
                           "a23456789012345678901234567890123456789012345678901234567890123"}) {
    EXPECT_TRUE(is_module_name(name)) << name;
  }
  for (const char* name : {"", "-a", "_a", "Legal", "a b", "a.b", "base", "backbone",
                           "a234567890123456789012345678901234567890123456789012345678901234"}) {
    EXPECT_FALSE(is_module_name(name)) << name;
  }
}

}  // namespace
}  // namespace chimera
