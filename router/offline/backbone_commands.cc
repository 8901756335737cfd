#include "router/offline/backbone_commands.h"

#include <fmt/format.h>

#include <boost/program_options.hpp>

#include "experts/offline/module_print.h"
#include "experts/offline/pack_backbone.h"
#include "router/offline/module_commands.h"

namespace chimera {
namespace {

namespace po = boost::program_options;
using Words = std::vector<std::string>;

/// The one argument; `options` are parsed with it.
std::string parse_backbone(const Words& words, po::options_description options, const char* name) {
  options.add_options()("args", po::value<Words>()->default_value({}, ""));
  po::positional_options_description positional;
  positional.add("args", -1);
  po::variables_map values;
  po::store(po::command_line_parser(words).options(options).positional(positional).run(), values);
  po::notify(values);
  const auto& args = values["args"].as<Words>();
  if (args.size() == 1) return args.front();
  throw ModuleUsage{fmt::format("found {} arguments (expected {})", args.size(), name)};
}

Status report_backbone(const char* what, const std::string& dir,
                       const Result<PackBackboneReport>& report, bool json) {
  if (!report.ok()) return report.status();
  Json out;
  out[what] = dir;
  out["fingerprint"] = report->fingerprint;
  out["packed"] = report->packed;
  out["kept"] = report->kept;
  out["bytes"] = report->bytes;
  print_report(out, json);
  return {};
}

Status run_backbone_pack(const Words& words, bool json) {
  PackBackboneOptions pack;
  std::string precision;
  po::options_description options;
  auto add = options.add_options();
  add("out", po::value(&pack.out)->required());
  add("precision", po::value(&precision)->default_value("q8"));
  pack.from = parse_backbone(words, options, "CHECKPOINT");
  const auto plan = parse_precision_plan(precision);
  if (!plan || same_packing(*plan, PrecisionPlan())) {
    throw ModuleUsage{
        fmt::format("--precision: \"{}\" (expected q8, q4, or classes of which one "
                    "is q8 or q4, as experts=q4,attention=q8,head=q8)",
                    precision)};
  }
  pack.precision = *plan;
  return report_backbone("backbone", pack.out, pack_backbone(pack), json);
}

Status run_backbone_verify(const Words& words, bool json) {
  std::string source;
  po::options_description options;
  options.add_options()("source", po::value(&source)->required());
  const std::string packed = parse_backbone(words, options, "PACKED");
  return report_backbone("verified", packed, verify_packed_backbone(packed, source), json);
}

}  // namespace

Status run_backbone(const Words& words, bool json) {
  const std::string name = words.empty() ? "" : words.front();
  const Words rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (name == "pack") return run_backbone_pack(rest, json);
  if (name == "verify") return run_backbone_verify(rest, json);
  throw ModuleUsage{fmt::format("backbone: \"{}\" (expected pack or verify)", name)};
}

}  // namespace chimera
