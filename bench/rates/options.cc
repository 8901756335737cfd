#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <iostream>

#include "rates/rates.h"

namespace chimera::bench {
namespace {

namespace po = boost::program_options;

PrecisionPlan plan_of(const std::string& text) {
  if (const auto plan = parse_precision_plan(text)) return *plan;
  throw po::error(
      fmt::format("--precision: {} (expected {}, or classes as experts=q4,attention=q8,head=q8)",
                  text, kPrecisionNames.choices()));
}

po::options_description describe(Takes takes, RateOptions* o) {
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("threads", po::value(&o->threads)->default_value(o->threads), "0 = auto");
  if (takes == Takes::kKernels) return d;
  d.add_options()("rounds", po::value(&o->rounds)->default_value(7), "measurements of each figure");
  d.add_options()("json", po::bool_switch(&o->json), "one JSON object");
  if (takes == Takes::kMachine) return d;
  d.add_options()("backbone", po::value(&o->backbone)->required(), "checkpoint, or GGUF file");
  d.add_options()("precision", po::value(&o->precision_text)->default_value("bf16"),
                  "f32 | bf16 | q8 | q4, or experts=q4,attention=q8,head=q8");
  const int64_t tokens = takes == Takes::kPrefill ? 512 : takes == Takes::kDecode ? 32 : 8;
  d.add_options()("tokens", po::value(&o->tokens)->default_value(tokens),
                  "of a round, each stream");
  if (takes == Takes::kPrefill)
    d.add_options()("chunk", po::value(&o->chunk)->default_value(512), "rows of a pass");
  else
    d.add_options()("context", po::value(&o->context)->default_value(64), "positions before them");
  if (takes == Takes::kBatch)
    d.add_options()("streams", po::value(&o->streams)->default_value(16), "sequences of a batch");
  return d;
}

void check(const RateOptions& o, Takes takes) {
  const auto least = [](const char* name, int64_t value, int64_t least_value) {
    if (value < least_value)
      throw po::error(fmt::format("--{}: {} (expected {} or more)", name, value, least_value));
  };
  least("threads", o.threads, 0);
  least("rounds", o.rounds, 1);
  if (takes == Takes::kMachine || takes == Takes::kKernels) return;
  least("tokens", o.tokens, 1);
  least("streams", o.streams, 1);
  if (takes == Takes::kPrefill)
    least("chunk", o.chunk, 1);
  else
    least("context", o.context, 0);
}

}  // namespace

std::optional<int> parse_rates(const std::vector<std::string>& args, Takes takes, RateOptions* o) {
  const po::options_description d = describe(takes, o);
  try {
    po::variables_map vm;
    po::store(po::command_line_parser(args).options(d).run(), vm);
    if (vm.count("help") != 0) {
      std::cout << d;
      return 0;
    }
    po::notify(vm);
    check(*o, takes);
    if (!o->precision_text.empty()) o->precision = plan_of(o->precision_text);
  } catch (const po::error& error) {
    std::cerr << "chimera-bench: " << error.what() << "\n" << d;
    return 2;
  }
  return std::nullopt;
}

}  // namespace chimera::bench
