// adapters: what LoRA costs a batch of streams that decode.
//
// Streams of one batch, each a token per step, in this process and without a daemon. By turns: none
// of them with an adapter, each with one of its own (of the given rank, on every product that
// adapters change: attention, feed-forwards, all routed experts), and all with the same one. Turns
// of one kind alternate with turns of the others, so that a machine that changes its pace changes
// it for all. Figures: tokens/s, and the ratio to those without; the goal is 0.85.
//
// With --registered N also what a composition of N adapters, --enabled of them enabled, costs
// streams that use none: by turns with one of no modules at all. They share the numbers of one
// adapter, as nobody looks at these. The goal is 0.99.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "backbone/checkpoint/fingerprint.h"
#include "bench.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/precision.h"
#include "experts/kinds/weights.h"
#include "experts/lora/build.h"
#include "experts/lora/targets.h"
#include "router/moe.h"
#include "stats.h"

namespace chimera::bench {
namespace {

struct Options {
  std::string backbone;
  Precision precision = Precision::kBF16;
  int threads = 0;
  int streams = 8, rank = 16, steps = 16, turns = 7;
  int registered = 0, enabled = 512;
  DType stored = DType::kBF16;  // of the adapters' tensors
};

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().to_string());
  return std::move(*result);
}

/// Of random numbers, so small that greedy streams stay what they are to the router.
std::shared_ptr<const Module> random_adapter(const ModelConfig& config, const Options& o,
                                             unsigned seed) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1e-3f, 1e-3f);
  uint64_t tensors = 0;  // bytes, as of its file
  const auto tensor = [&](int64_t rows, int64_t cols) {
    std::byte* bytes = nullptr;
    tensors += static_cast<uint64_t>(rows * cols * dtype_bits(o.stored) / 8);
    TensorView view = make_unset_tensor("", o.stored, {rows, cols}, &bytes);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = uniform(rng);
      if (o.stored == DType::kF32)
        reinterpret_cast<float*>(bytes)[i] = value;
      else
        reinterpret_cast<uint16_t*>(bytes)[i] = f32_to_bf16(value);
    }
    return view;
  };
  std::vector<StoredChange> changes;
  for (const auto& [name, target] : adapter_targets(config)) {
    changes.push_back({target, tensor(o.rank, target.inputs), tensor(target.outputs, o.rank), 1.0});
  }
  auto module = std::make_shared<Module>();
  module->manifest.name = fmt::format("adapter-{}", seed);
  module->manifest.kind = ModuleKind::kLora;
  module->adapter = must(build_adapter(changes, config, tensors));
  return module;
}

class Bench {
 public:
  explicit Bench(const Options& o) : o_(o), pool_(o.threads > 0 ? o.threads : auto_threads()) {
    const Checkpoint checkpoint = must(Checkpoint::open(o.backbone, Residency::kAutomatic));
    backbone_ = must(Backbone::load(checkpoint, o.precision));
    const ModelConfig& config = backbone_->config();
    const auto base = must(load_base_experts(checkpoint, config, o.precision));
    std::vector<std::shared_ptr<const Module>> modules;
    for (int i = 0; i < o.streams; ++i) {
      modules.push_back(random_adapter(config, o, static_cast<unsigned>(i)));
      bytes_ += modules.back()->resident_bytes();
    }
    const RoutingTableBuilder builder(config, base);
    own_ = table_of(builder, modules, modules.size());
    none_ = table_of(builder, {}, 0);
    std::vector<std::shared_ptr<const Module>> many;
    for (int i = 0; i < o.registered; ++i) {
      auto same = std::make_shared<Module>(*modules.front());
      same->manifest.name = fmt::format("registered-{}", i);
      many.push_back(std::move(same));
    }
    many_ = table_of(builder, many, static_cast<size_t>(o.enabled));
    router_ = std::make_unique<MoeRouter>(config, best_kernels(), pool_);
  }

  uint64_t adapter_bytes() const { return bytes_; }
  int threads() const { return pool_.threads(); }

  /// Tokens per second of all streams; `adapter_of(stream)`: its module in the table of an adapter
  /// for each, 0 for none.
  template <class AdapterOf>
  double turn(AdapterOf adapter_of) {
    return turn_on(own_, adapter_of);
  }
  /// The same of no module, on a table of many and on one of none.
  double turn_beside_many() {
    return turn_on(many_, [](int) { return size_t{0}; });
  }
  double turn_beside_none() {
    return turn_on(none_, [](int) { return size_t{0}; });
  }

 private:
  using Table = std::shared_ptr<const RoutingTable>;

  static Table table_of(const RoutingTableBuilder& builder,
                        const std::vector<std::shared_ptr<const Module>>& modules, size_t enabled) {
    Composition composition;
    for (size_t i = 0; i < modules.size(); ++i)
      composition.modules.push_back({modules[i]->name(), "1", "", "", i < enabled, 0.0f});
    return must(builder.build(1, composition, modules));
  }

  template <class AdapterOf>
  double turn_on(const Table& table, AdapterOf adapter_of) {
    const ModelConfig& config = backbone_->config();
    auto cache = must(
        KvCache::create(config, {.block_tokens = 16, .blocks = o_.streams * (o_.steps / 16 + 2)}));
    std::vector<std::shared_ptr<const RouteView>> views;
    std::vector<std::unique_ptr<KvSequence>> kvs;
    for (int i = 0; i < o_.streams; ++i) {
      ModuleMask mask{0};
      if (const size_t adapter = adapter_of(i); adapter > 0) mask.add(adapter);
      views.push_back(must(make_route_view(table, mask, {})));
      kvs.push_back(std::make_unique<KvSequence>(cache.get()));
      if (!kvs.back()->reserve(o_.steps + 1).ok()) throw std::runtime_error("no blocks");
    }
    step(views, kvs, 0);  // warms up
    const double start = now_s();
    for (int s = 1; s <= o_.steps; ++s) step(views, kvs, s);
    return static_cast<double>(o_.streams * o_.steps) / (now_s() - start);
  }

  void step(const std::vector<std::shared_ptr<const RouteView>>& views,
            const std::vector<std::unique_ptr<KvSequence>>& kvs, int position) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < o_.streams; ++i)
      tokens.push_back(
          static_cast<int32_t>((7919 * (i + 31 * position)) % backbone_->config().vocab_size));
    std::vector<BatchSegment> segments;
    std::vector<RoutedSegment> routed;
    for (size_t i = 0; i < views.size(); ++i) {
      segments.push_back({{&tokens[i], 1},
                          position,
                          kvs[i].get(),
                          BatchSegment::Logits::kLast,
                          views[i]->backbone_adapters});
      RoutedSegment segment;
      segment.view = views[i].get();
      segment.rows = 1;
      routed.push_back(segment);
    }
    router_->begin_pass(routed, nullptr);
    const Status status = backbone_->forward(segments, *router_, best_kernels(), pool_, workspace_);
    if (!status.ok()) throw std::runtime_error(status.to_string());
  }

  const Options o_;
  ThreadPool pool_;
  std::shared_ptr<const Backbone> backbone_;
  Table own_, none_, many_;
  std::unique_ptr<MoeRouter> router_;
  Workspace workspace_;
  uint64_t bytes_ = 0;
};

void report(const Options& o) {
  Bench bench(o);
  std::vector<double> none, own, same, own_ratio, same_ratio;
  for (int t = 0; t < o.turns; ++t) {
    none.push_back(bench.turn([](int) { return size_t{0}; }));
    own.push_back(bench.turn([](int i) { return static_cast<size_t>(i) + 1; }));
    same.push_back(bench.turn([](int) { return size_t{1}; }));
    own_ratio.push_back(own.back() / none.back());
    same_ratio.push_back(same.back() / none.back());
  }
  fmt::print("{} streams, rank {}, {} threads, {}; {:.1f} MB for {} adapters in {}\n", o.streams,
             o.rank, bench.threads(), kPrecisionNames.name(o.precision),
             static_cast<double>(bench.adapter_bytes()) / 1e6, o.streams, dtype_name(o.stored));
  const auto line = [](const char* what, std::vector<double> rate, std::vector<double> ratio) {
    const auto r = spread(rate);
    fmt::print("  {:<16}{:9.1f} tokens/s", what, r.median);
    if (!ratio.empty()) fmt::print("   {:.3f} of without", spread(ratio).median);
    fmt::print("\n");
  };
  line("without", none, {});
  line("one for each", own, own_ratio);
  line("the same for all", same, same_ratio);
  if (o.registered == 0) return;
  std::vector<double> beside_none, beside_many, ratio;
  for (int t = 0; t < o.turns; ++t) {
    beside_none.push_back(bench.turn_beside_none());
    beside_many.push_back(bench.turn_beside_many());
    ratio.push_back(beside_many.back() / beside_none.back());
  }
  fmt::print("streams that use none of {} adapters, {} enabled\n", o.registered,
             std::min(o.enabled, o.registered));
  line("no modules", beside_none, {});
  line("beside them", beside_many, ratio);
}

/// What the options' types do not say; sets Options::precision.
void check(const boost::program_options::variables_map& vm, Options* o) {
  const auto& text = vm["precision"].as<std::string>();
  const auto named = kPrecisionNames.find(text);
  if (!named) {
    throw boost::program_options::error(
        fmt::format("--precision: {} (expected {})", text, kPrecisionNames.choices()));
  }
  o->precision = *named;
  const auto& stored = vm["stored"].as<std::string>();
  if (stored != "bf16" && stored != "f32") {
    throw boost::program_options::error(fmt::format("--stored: {} (expected bf16 | f32)", stored));
  }
  o->stored = stored == "f32" ? DType::kF32 : DType::kBF16;
  for (const char* name : {"streams", "rank", "steps", "turns"}) {
    if (const int count = vm[name].as<int>(); count < 1) {
      throw boost::program_options::error(
          fmt::format("--{}: {} (expected 1 or more)", name, count));
    }
  }
  for (const char* name : {"registered", "enabled"}) {
    const int count = vm[name].as<int>();
    if (count >= 0 && count <= kMaxModules) continue;
    throw boost::program_options::error(
        fmt::format("--{}: {} (expected 0 to {})", name, count, kMaxModules));
  }
}

}  // namespace

int run_adapters(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  Options o;
  std::string precision;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("backbone", po::value(&o.backbone)->required(), "checkpoint directory");
  d.add_options()("precision", po::value(&precision)->default_value("bf16"),
                  "f32 | bf16 | q8 | q4");
  d.add_options()("stored", po::value<std::string>()->default_value("bf16"),
                  "numbers of the adapters: bf16 | f32");
  d.add_options()("threads", po::value(&o.threads)->default_value(0), "compute threads; 0 = auto");
  d.add_options()("streams", po::value(&o.streams)->default_value(8), "sequences in the batch");
  d.add_options()("rank", po::value(&o.rank)->default_value(16), "of the adapters");
  d.add_options()("steps", po::value(&o.steps)->default_value(16), "tokens of a turn, each stream");
  d.add_options()("turns", po::value(&o.turns)->default_value(7), "of each kind");
  d.add_options()("registered", po::value(&o.registered)->default_value(0),
                  "adapters that no stream uses, to see what they cost; 0 = leave it out");
  d.add_options()("enabled", po::value(&o.enabled)->default_value(512), "of those");
  try {
    po::variables_map vm;
    po::store(po::command_line_parser(args).options(d).run(), vm);
    if (vm.count("help") != 0) {
      std::cout << d;
      return 0;
    }
    po::notify(vm);
    check(vm, &o);
    report(o);
  } catch (const po::error& error) {
    std::cerr << "chimera-bench: " << error.what() << "\n" << d;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "chimera-bench: adapters: " << error.what() << "\n";
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
