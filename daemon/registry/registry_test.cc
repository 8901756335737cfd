#include "daemon/registry/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <future>
#include <limits>

#include "daemon/registry/module_loader.h"
#include "daemon/registry/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> actions(const std::vector<ChangeItem>& changes) {
  std::vector<std::string> out;
  for (const ChangeItem& item : changes) {
    out.push_back(kChangeActionNames.text(item.action) +
                  (item.module.empty() ? "" : " " + item.module));
  }
  return out;
}

TEST_F(RegistryTest, LoadPublishesRecordsAndAcknowledges) {
  const auto daemon = start();
  EXPECT_EQ(daemon->epoch(), 1u);
  const Stream before = daemon->run();
  const auto report = daemon->load(at("legal"));
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->epoch, 2u);
  EXPECT_THAT(actions(report->changes), ElementsAre("load legal"));
  EXPECT_EQ(daemon->epoch(), 2u);
  EXPECT_EQ(daemon->digest(), report->composition);
  EXPECT_NE(daemon->run(), before);  // the expert is really used

  const auto modules = daemon->registry->modules();
  ASSERT_EQ(modules.size(), 1u);
  EXPECT_EQ(modules[0].name, "legal");
  EXPECT_EQ(modules[0].state, ModuleState::kActive);
  EXPECT_EQ(modules[0].attach, Attach::kAppend);
  EXPECT_EQ(modules[0].experts, 3);  // one in each of three layers
  EXPECT_GT(modules[0].resident_bytes, 0u);
  ASSERT_EQ(daemon->registry->history().size(), 2u);
  EXPECT_EQ(daemon->registry->history().back().composition.modules[0].path, at("legal"));

  const auto unloaded = daemon->registry->unload("legal");
  ASSERT_TRUE(unloaded.ok());
  EXPECT_EQ(unloaded->epoch, 3u);
  EXPECT_EQ(daemon->run(), before);
}

TEST_F(RegistryTest, LoadingTheSameAgainMakesNoEpoch) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const auto again = daemon->load(at("legal") + "/../legal/");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->epoch, 2u);
  EXPECT_TRUE(again->changes.empty());
}

TEST_F(RegistryTest, ReplaceKeepsPlaceAndOptions) {
  const auto daemon = start();
  LoadArgs legal;
  legal.path = at("legal");
  legal.bias = 0.5f;
  legal.enabled = false;
  ASSERT_TRUE(daemon->registry->load(legal).ok());
  EXPECT_EQ(daemon->registry->modules()[0].state, ModuleState::kDisabled);
  ASSERT_TRUE(daemon->load(at("bio")).ok());

  const std::string next = copy("legal");
  const Manifest old = must(read_manifest(next));
  edit(next + "/module.yaml", old.version, "9.9.9");
  const auto report = daemon->load(next);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_THAT(actions(report->changes), ElementsAre("replace legal"));
  EXPECT_THAT(report->changes[0].detail, HasSubstr("-> 9.9.9"));
  const Composition is = daemon->registry->composition();
  EXPECT_EQ(daemon->names(), "legal,bio");
  EXPECT_EQ(is.modules[0].bias, 0.5f);
  EXPECT_FALSE(is.modules[0].enabled);

  legal.path = next;
  legal.enabled = true;
  const auto enabled = daemon->registry->load(legal);
  ASSERT_TRUE(enabled.ok());
  EXPECT_THAT(actions(enabled->changes), ElementsAre("enable legal"));
}

/// Of the module `name` as `modules` tells it.
std::optional<Precision> told(const Daemon& daemon, const std::string& name) {
  for (const ModuleStatus& module : daemon.registry->modules()) {
    if (module.name == name) return module.precision;
  }
  return std::nullopt;
}

TEST_F(RegistryTest, AModuleKeepsThePrecisionThatItWasLoadedWith) {
  const std::string next = copy("legal");
  std::string packed;
  {
    const auto daemon = start();                  // f32
    ASSERT_TRUE(daemon->load(at("legal")).ok());  // 2
    EXPECT_EQ(told(*daemon, "legal"), Precision::kF32);
    const std::string wide = daemon->digest();
    const Stream answer = daemon->run();
    LoadArgs args = load_of(at("legal"));
    args.precision = Precision::kQ8;
    const auto report = daemon->registry->load(args);  // 3
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_THAT(actions(report->changes), ElementsAre("precision legal"));
    EXPECT_THAT(report->changes[0].detail, HasSubstr("-> q8"));
    EXPECT_EQ(told(*daemon, "legal"), Precision::kQ8);
    packed = daemon->digest();
    EXPECT_NE(packed, wide);
    // A load that says nothing of it changes nothing of it, be it of another version.
    EXPECT_TRUE(must(daemon->load(at("legal"))).changes.empty());
    edit(next + "/module.yaml", must(read_manifest(next)).version, "9.9.9");
    EXPECT_THAT(actions(must(daemon->load(next)).changes), ElementsAre("replace legal"));  // 4
    EXPECT_EQ(told(*daemon, "legal"), Precision::kQ8);
    ASSERT_TRUE(daemon->registry->rollback(2).ok());
    EXPECT_EQ(daemon->digest(), wide);
    EXPECT_EQ(told(*daemon, "legal"), Precision::kF32);
    EXPECT_EQ(daemon->run().tokens, answer.tokens);
    ASSERT_TRUE(daemon->registry->rollback(3).ok());
    EXPECT_EQ(daemon->digest(), packed);
  }
  const auto again = start();
  EXPECT_EQ(again->digest(), packed);
  EXPECT_EQ(told(*again, "legal"), Precision::kQ8);
}

TEST_F(RegistryTest, APlanKnowsWhatAPrecisionTakesAndAnApplyKeepsIt) {
  const auto daemon = start();
  CompositionSpec wish = spec_of({at("legal"), at("bio")});
  const PlanReport wide = daemon->registry->outline(wish);
  wish.modules[0].precision = Precision::kQ8;
  const PlanReport quick = daemon->registry->outline(wish);
  EXPECT_NE(quick.composition, wide.composition);
  EXPECT_LT(quick.memory_bytes, wide.memory_bytes * 3 / 4);
  const PlanReport whole = daemon->registry->plan(wish);
  EXPECT_EQ(quick.composition, whole.composition);
  EXPECT_GE(quick.memory_bytes, whole.memory_bytes);
  EXPECT_LE(quick.memory_bytes, whole.memory_bytes * 105 / 100);
  const uint64_t probed = daemon->loader->probes_run();
  ASSERT_TRUE(daemon->registry->apply(wish, InFlight::kPin).ok());
  EXPECT_EQ(daemon->loader->probes_run(), probed);
  EXPECT_EQ(daemon->digest(), whole.composition);
  EXPECT_EQ(told(*daemon, "legal"), Precision::kQ8);
  EXPECT_EQ(told(*daemon, "bio"), Precision::kF32);
  // One that a plan looked at in passing is not what an apply without it gets.
  wish.modules[0].precision.reset();
  ASSERT_TRUE(daemon->registry->apply(wish, InFlight::kPin).ok());
  EXPECT_EQ(told(*daemon, "legal"), Precision::kF32);
  EXPECT_EQ(daemon->digest(), wide.composition);
}

TEST_F(RegistryTest, UnknownModulesAreListed) {
  const auto daemon = start();
  EXPECT_THAT(daemon->registry->unload("legal").status().message(), HasSubstr("none is loaded"));
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  for (const Status& status :
       {daemon->registry->unload("lgal").status(), daemon->registry->revoke("lgal").status(),
        daemon->registry->set_bias("lgal", 0).status()}) {
    EXPECT_EQ(status.code(), Code::kNotFound);
    EXPECT_THAT(status.message(), HasSubstr("found lgal"));
    EXPECT_THAT(status.message(), HasSubstr("legal, bio"));
  }
  EXPECT_EQ(daemon->epoch(), 3u);
}

TEST_F(RegistryTest, BiasIsCheckedAndPublished) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const Stream plain = daemon->run();
  for (const float bad : {101.0f, -101.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    const auto report = daemon->registry->set_bias("legal", bad);
    EXPECT_EQ(report.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(report.status().message(), HasSubstr("(expected -100..100)"));
  }
  ASSERT_TRUE(daemon->registry->set_bias("legal", -100.0f).ok());
  EXPECT_NE(daemon->run(), plain);
  ASSERT_TRUE(daemon->registry->set_bias("legal", 0.0f).ok());
  EXPECT_EQ(daemon->run(), plain);
}

TEST_F(RegistryTest, PlanTellsAndTouchesNothing) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const size_t descriptors = open_descriptors();
  CompositionSpec wish = spec_of({at("bio"), at("legal")});
  wish.top_k = 5;
  const PlanReport good = daemon->registry->plan(wish);
  EXPECT_TRUE(good.refusals.empty());
  EXPECT_THAT(actions(good.changes), ElementsAre("load bio", "top_k"));
  EXPECT_GT(good.memory_bytes, 0);

  wish.modules.push_back({at("nowhere"), true, 0.0f});
  wish.modules.push_back({at("bio"), true, 0.0f});
  wish.modules.push_back({"relative", true, 0.0f});
  wish.modules.push_back({at("finance"), true, 1000.0f});
  const PlanReport bad = daemon->registry->plan(wish);
  ASSERT_EQ(bad.refusals.size(), 4u);
  EXPECT_EQ(bad.refusals[0].code(), Code::kNotFound);
  EXPECT_EQ(bad.refusals[1].code(), Code::kAlreadyExists);
  EXPECT_EQ(bad.refusals[2].code(), Code::kInvalidArgument);
  EXPECT_EQ(bad.refusals[3].code(), Code::kInvalidArgument);

  EXPECT_EQ(daemon->epoch(), 2u);
  EXPECT_EQ(daemon->registry->history().size(), 2u);
  EXPECT_EQ(open_descriptors(), descriptors);
  wish.modules.resize(2);
  const auto applied = daemon->registry->apply(wish, InFlight::kPin);
  ASSERT_TRUE(applied.ok());
  EXPECT_EQ(applied->composition, good.composition);
}

TEST_F(RegistryTest, AnOutlineTellsWhatAPlanDoesWithoutReadingAnything) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const uint64_t hashed = daemon->loader->contents_hashed();
  const uint64_t probed = daemon->loader->probes_run();
  CompositionSpec wish = spec_of({at("bio"), at("legal"), at("nowhere"), at("bio")});
  wish.modules.push_back({at("finance"), true, 1000.0f});
  wish.top_k = 1;
  const PlanReport quick = daemon->registry->outline(wish);
  EXPECT_EQ(daemon->loader->contents_hashed(), hashed);
  EXPECT_EQ(daemon->loader->probes_run(), probed);
  const PlanReport whole = daemon->registry->plan(wish);
  EXPECT_EQ(quick.composition, whole.composition);
  // With the file's header, as the account has it.
  EXPECT_GE(quick.memory_bytes, whole.memory_bytes);
  EXPECT_LE(quick.memory_bytes, whole.memory_bytes * 105 / 100);
  EXPECT_EQ(actions(quick.changes), actions(whole.changes));
  EXPECT_EQ(quick.notes, whole.notes);
  ASSERT_EQ(quick.refusals.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(quick.refusals[i].to_string(), whole.refusals[i].to_string());
  }
}

TEST_F(RegistryTest, AnOutlineWaitsForNoLoad) {
  const auto daemon = start();
  Gate gate;
  std::vector<std::future<void>> loads;
  std::vector<std::promise<void>> done(5);  // more than run side by side
  for (std::promise<void>& one : done) {
    loads.push_back(one.get_future());
    daemon->registry->ask(load_of(at("legal")), {0, [&] { return gate.pass(); }},
                          [&](const Result<ChangeReport>&) { one.set_value(); });
  }
  ASSERT_TRUE(gate.reached_by(1));
  EXPECT_TRUE(daemon->registry->outline(spec_of({at("bio")})).refusals.empty());
  gate.open();
  for (auto& load : loads) load.wait();
}

TEST_F(RegistryTest, APlanLooksAtItsModulesTogetherAndTheNextOneAnew) {
  int made = 0;
  std::vector<int> asked;  // of each that was made
  Daemon::Settings settings;
  settings.accept = [&]() -> ModuleLoader::Accept {
    asked.push_back(0);
    return [&, mine = static_cast<size_t>(made++)](const std::string& dir, const Manifest&) {
      ++asked[mine];
      return dir == at("finance") ? Status(Code::kPermissionDenied, "not this one") : Status();
    };
  };
  const TempDir state;
  const Daemon daemon(state.path, std::move(settings));
  const CompositionSpec wish = spec_of({at("legal"), at("bio"), at("finance")});
  for (int plan = 1; plan <= 2; ++plan) {
    const PlanReport report = daemon.registry->outline(wish);
    ASSERT_EQ(report.refusals.size(), 1u);
    EXPECT_EQ(report.refusals[0].message(), "not this one");
    EXPECT_EQ(asked, std::vector<int>(static_cast<size_t>(plan), 3));
  }
}

TEST_F(RegistryTest, AnOutlineRefusesByHeadersAndLeavesContentsToThePlan) {
  const auto daemon = start();
  const std::string dir = copy("legal");
  const std::string path = dir + "/weights.safetensors";
  const std::string whole = slurp(path);
  std::string damaged = whole;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  spill(path, damaged);
  EXPECT_TRUE(daemon->registry->outline(spec_of({dir})).refusals.empty()) << "it was not read";
  EXPECT_EQ(daemon->registry->plan(spec_of({dir})).refusals.size(), 1u);

  spill(path, whole.substr(0, whole.size() / 2));
  EXPECT_EQ(daemon->registry->outline(spec_of({dir})).refusals.size(), 1u) << "half a file";
  // A tensor of another shape, of the same size.
  const size_t shape = whole.find("\"shape\":[");
  ASSERT_NE(shape, std::string::npos);
  std::string turned = whole;
  const size_t comma = turned.find(',', shape), begin = shape + 9, end = turned.find(']', shape);
  const std::string rows = turned.substr(begin, comma - begin);
  const std::string cols = turned.substr(comma + 1, end - comma - 1);
  turned.replace(begin, end - begin, cols + "," + rows);
  ASSERT_EQ(turned.size(), whole.size());
  spill(path, turned);
  const PlanReport refused = daemon->registry->outline(spec_of({dir}));
  ASSERT_EQ(refused.refusals.size(), 1u);
  EXPECT_THAT(refused.refusals[0].message(), HasSubstr("found shape"));
}

TEST_F(RegistryTest, TellsOfModulesThatWereFittedForAnotherTopK) {
  const auto daemon = start();
  const std::string legal = copy("legal");
  const std::string manifest = legal + "/module.yaml";
  std::string text = must(read_file(Env::system(), manifest, 1 << 20));
  const size_t stated = text.find("top_k: ");
  ASSERT_NE(stated, std::string::npos) << text;
  text.replace(stated, text.find('\n', stated) - stated, "top_k: 3");
  std::ofstream(manifest) << text;
  CompositionSpec wish = spec_of({legal});
  EXPECT_TRUE(daemon->registry->plan(wish).notes.empty());
  wish.top_k = 1;
  const std::string note = "module legal was fitted for top_k 3, but the composition says 1";
  EXPECT_THAT(daemon->registry->plan(wish).notes, ElementsAre(note));
  const auto applied = daemon->registry->apply(wish, InFlight::kPin);
  ASSERT_TRUE(applied.ok()) << applied.status().to_string();
  EXPECT_THAT(applied->notes, ElementsAre(note));
  const auto again = daemon->load(legal);
  ASSERT_TRUE(again.ok());
  EXPECT_THAT(again->notes, ElementsAre(note)) << "nothing changed, and still so";
  EXPECT_EQ(daemon->registry->modules().at(0).top_k, 3);
}

TEST_F(RegistryTest, ApplyIsAllOrNothing) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const std::string digest = daemon->digest();
  const auto refused =
      daemon->registry->apply(spec_of({at("finance"), at("nowhere"), "x"}), InFlight::kPin);
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("nowhere"));
  EXPECT_THAT(refused.status().message(), HasSubstr("absolute path"));
  EXPECT_EQ(daemon->digest(), digest);
  const auto twice = daemon->registry->apply(spec_of({at("bio"), copy("bio")}), InFlight::kPin);
  EXPECT_THAT(twice.status().message(), HasSubstr("names to be distinct"));

  const auto all =
      daemon->registry->apply(spec_of({at("bio"), at("legal"), at("finance")}), InFlight::kPin);
  ASSERT_TRUE(all.ok()) << all.status().to_string();
  EXPECT_EQ(daemon->names(), "bio,legal,finance");
  const auto reordered =
      daemon->registry->apply(spec_of({at("finance"), at("legal")}), InFlight::kRestart);
  ASSERT_TRUE(reordered.ok());
  EXPECT_THAT(actions(reordered->changes), ElementsAre("unload bio", "reorder"));
}

TEST_F(RegistryTest, RollbackFollowsTheHistory) {
  const auto daemon = start();
  EXPECT_EQ(daemon->registry->rollback(std::nullopt).status().code(), Code::kFailedPrecondition);
  const std::string dir = copy("legal");
  ASSERT_TRUE(daemon->load(dir).ok());        // 2
  ASSERT_TRUE(daemon->load(at("bio")).ok());  // 3
  const std::string both = daemon->digest();
  ASSERT_TRUE(daemon->registry->rollback(std::nullopt).ok());  // 4 = 2
  EXPECT_EQ(daemon->names(), "legal");
  ASSERT_TRUE(daemon->registry->rollback(3).ok());  // 5 = 3
  EXPECT_EQ(daemon->digest(), both);
  EXPECT_EQ(daemon->epoch(), 5u);
  ASSERT_TRUE(daemon->registry->rollback(1).ok());
  EXPECT_EQ(daemon->names(), "");
  const auto unknown = daemon->registry->rollback(77);
  EXPECT_EQ(unknown.status().code(), Code::kNotFound);
  EXPECT_THAT(unknown.status().message(), HasSubstr("1..6"));

  edit(dir + "/module.yaml", must(read_manifest(dir)).version, "2.0.0");
  const auto changed = daemon->registry->rollback(2);
  EXPECT_EQ(changed.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(changed.status().message(), HasSubstr("epoch 2: module legal"));
  fs::remove_all(dir);
  EXPECT_EQ(daemon->registry->rollback(2).status().code(), Code::kNotFound);
  EXPECT_EQ(daemon->epoch(), 6u);
}

TEST_F(RegistryTest, UnloadFromTakesOnlyWhatCameFromThere) {
  const auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  EXPECT_EQ(daemon->registry->unload_from(copy("legal")).status().code(), Code::kNotFound);
  EXPECT_EQ(daemon->names(), "legal");
  ASSERT_TRUE(daemon->registry->unload_from(at("legal")).ok());
  EXPECT_EQ(daemon->names(), "");
}

// --- restart -----------------------------------------------------------------------------------

TEST_F(RegistryTest, RestartTakesTheLastAcknowledgedComposition) {
  const std::string dir = copy("legal");
  Daemon::Settings settings;
  settings.deployment = spec_of({at("finance")});
  std::string digest;
  Stream stream;
  {
    const auto daemon = start(settings);
    EXPECT_EQ(daemon->names(), "finance");  // first start: the deployment
    ASSERT_TRUE(daemon->load(dir).ok());
    ASSERT_TRUE(daemon->registry->set_bias("legal", 0.7f).ok());
    digest = daemon->digest();
    stream = daemon->run();
  }
  {
    const auto daemon = start(settings);  // the state wins over the deployment
    EXPECT_EQ(daemon->names(), "finance,legal");
    EXPECT_EQ(daemon->digest(), digest);
    EXPECT_EQ(daemon->run(), stream);
    EXPECT_EQ(daemon->epoch(), 4u);  // strictly increasing across restarts
  }
  fs::remove_all(dir);
  {
    const auto daemon = start(settings);  // what no longer loads is left out
    EXPECT_EQ(daemon->names(), "finance");
  }
  fs::copy(at("legal"), dir, fs::copy_options::recursive);
  const auto daemon = start(settings);
  EXPECT_EQ(daemon->names(), "finance");
  ASSERT_TRUE(daemon->registry->rollback(4).ok());  // and comes back by rollback
  EXPECT_EQ(daemon->digest(), digest);
}

TEST_F(RegistryTest, ChangedModuleIsNotTakenSilently) {
  const std::string dir = copy("legal");
  { ASSERT_TRUE(start()->load(dir).ok()); }
  edit(dir + "/module.yaml", must(read_manifest(dir)).version, "6.6.6");
  EXPECT_EQ(start()->names(), "");
}

TEST_F(RegistryTest, BrokenDeploymentModulesDoNotKeepTheDaemonFromStarting) {
  Daemon::Settings settings;
  settings.deployment = spec_of({at("legal"), at("nowhere"), copy("legal"), at("bio")});
  EXPECT_EQ(start(settings)->names(), "legal,bio");
}

// --- probe ---------------------------------------------------------------------------------------

// One token per byte, in the byte-level alphabet of GPT-2.
std::shared_ptr<const Tokenizer> byte_tokenizer() {
  std::string vocab;
  int shifted = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int point = printable ? b : 256 + shifted++;
    std::string key;
    if (point == '"' || point == '\\') {
      key = std::string("\\") + static_cast<char>(point);
    } else {
      key = fmt::format("\\u{:04x}", point);
    }
    vocab += fmt::format("{}\"{}\": {}", b == 0 ? "" : ", ", key, b);
  }
  return must(Tokenizer::parse(
      R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
          "normalizer": null, "post_processor": null,
          "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                            "use_regex": true},
          "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                      "use_regex": true},
          "model": {"type": "BPE", "dropout": null, "unk_token": null,
                    "continuing_subword_prefix": null, "end_of_word_suffix": null,
                    "fuse_unk": false, "byte_fallback": false, "vocab": {)" +
          vocab + R"(}, "merges": []}})",
      "bytes"));
}

TEST_F(RegistryTest, ProbeBoundOfTheManifestIsHeld) {
  Daemon::Settings settings;
  settings.tokenizer = byte_tokenizer();
  const auto daemon = start(settings);
  const std::string dir = copy("legal");
  std::ofstream(dir + "/module.yaml", std::ios::app)
      << "probe:\n  text: \"The parties agree that\"\n  max_bits_per_byte: 1.5\n";
  const auto refused = daemon->load(dir);  // random weights: about log2(320) bits
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(),
              HasSubstr("bits per byte (expected at most 1.5, as module.yaml says)"));
  edit(dir + "/module.yaml", "1.5", "50");
  EXPECT_TRUE(daemon->load(dir).ok()) << daemon->load(dir).status().to_string();
}

TEST_F(RegistryTest, KnownContentIsNotProbedAgain) {
  LoadedBackbone model = Fixture::get().loaded();
  model.tokenizer = nullptr;
  ModuleLoader loader(model);
  const std::string dir = copy("legal");
  auto first = must(loader.load(dir));
  EXPECT_EQ(loader.probes_run(), 1u);
  EXPECT_EQ(must(loader.load(dir)), first);  // the very object
  const std::string other = copy("legal", "other");
  auto second = must(loader.load(other));
  EXPECT_NE(second, first);
  EXPECT_EQ(loader.probes_run(), 1u);  // other files, same content
  EXPECT_EQ(loader.contents_hashed(), 1u);

  // Damage behind an unchanged manifest is still noticed.
  std::string bytes = slurp(dir + "/weights.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  spill(dir + "/weights.safetensors", bytes);
  EXPECT_EQ(loader.load(dir).status().code(), Code::kDataCorrupt);

  const std::weak_ptr<const Module> weak = first;
  first.reset();
  EXPECT_TRUE(weak.expired());  // the loader keeps nothing alive
}

}  // namespace
}  // namespace chimera
