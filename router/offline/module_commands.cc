#include "router/offline/module_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>

#include "base/json/writer.h"
#include "experts/offline/convert.h"
#include "experts/offline/cut.h"
#include "experts/offline/module_print.h"
#include "experts/offline/module_report.h"
#include "experts/offline/pack.h"
#include "experts/offline/sign.h"
#include "experts/offline/slot_sets.h"
#include "router/offline/assembly_commands.h"
#include "router/offline/backbone_commands.h"
#include "router/offline/gate_commands.h"

namespace chimera {
namespace {

namespace po = boost::program_options;
using Words = std::vector<std::string>;

[[noreturn]] void usage(std::string message) { throw ModuleUsage{std::move(message)}; }

/// Options of one command and its positional arguments.
po::variables_map parse(const Words& words, const po::options_description& options) {
  po::options_description all;
  all.add(options).add_options()("args", po::value<Words>()->default_value({}, ""), "");
  po::positional_options_description positional;
  positional.add("args", -1);
  po::variables_map values;
  po::store(po::command_line_parser(words).options(all).positional(positional).run(), values);
  po::notify(values);
  return values;
}

std::string only_argument(const po::variables_map& values, const char* name) {
  const auto& args = values["args"].as<Words>();
  if (args.size() != 1) usage(fmt::format("found {} arguments (expected {})", args.size(), name));
  return args.front();
}

/// --module and --map, together. Slots may be left out where changes are looked for.
Status read_modules(const Words& modules, const std::string& map, SplitOptions& split) {
  for (const std::string& text : modules) {
    Result<SplitModule> module = parse_split_module(text);
    if (!module.ok()) usage("--module: " + module.status().message());
    if (module->slots.empty() && split.parent_dir.empty()) {
      usage(fmt::format("--module: \"{}\" (expected NAME=SLOTS, e.g. legal=2-5,7)", text));
    }
    split.modules.push_back(std::move(*module));
  }
  if (!map.empty()) {
    Result<std::vector<SplitModule>> read = read_split_map(map);
    if (!read.ok()) return read.status();
    for (SplitModule& module : *read) split.modules.push_back(std::move(module));
  }
  if (split.modules.empty()) usage("found no module (expected --module or --map)");
  return {};
}

Status run_split(const Words& words, bool json) {
  SplitOptions split;
  std::string attach;
  std::string map;
  Words modules;
  po::options_description options;
  auto add = options.add_options();
  add("backbone", po::value(&split.backbone_out));
  add("modules-out", po::value(&split.modules_out)->required());
  add("module", po::value(&modules));
  add("map", po::value(&map));
  add("parent", po::value(&split.parent_dir));
  add("attach", po::value(&attach));
  add("license", po::value(&split.license)->default_value(split.license));
  split.checkpoint_dir = only_argument(parse(words, options), "CHECKPOINT");
  const bool difference = !split.parent_dir.empty();
  if (difference && !(split.backbone_out.empty() && attach.empty())) {
    usage(
        "--parent: found --backbone or --attach beside it (expected neither: the parent is the "
        "backbone)");
  }
  if (!difference && split.backbone_out.empty()) usage("--backbone: found none (expected OUT)");
  if (!attach.empty()) {
    const auto found = kAttachNames.find(attach);
    if (!found) {
      usage(fmt::format("--attach: \"{}\" (expected {})", attach, kAttachNames.choices()));
    }
    split.attach = *found;
  }
  CHIMERA_RETURN_IF_ERROR(read_modules(modules, map, split));

  const Result<SplitReport> report = split_checkpoint(split);
  if (!report.ok()) return report.status();
  Json out;
  out["backbone"] = difference ? split.parent_dir : split.backbone_out;
  out["fingerprint"] = report->fingerprint;
  out["experts_per_layer"] = report->experts_left;
  out["experts_per_token"] = report->num_experts_per_tok;
  out["modules"] = report->module_dirs;
  print_report(out, json);
  return {};
}

Status run_graft(const Words& words, bool json) {
  GraftOptions graft;
  po::options_description options;
  options.add_options()("out", po::value(&graft.out_dir)->required());
  graft.module_dirs = parse(words, options)["args"].as<Words>();
  if (graft.module_dirs.size() < 2) usage("expected BACKBONE and at least one MODULE");
  graft.backbone_dir = graft.module_dirs.front();
  graft.module_dirs.erase(graft.module_dirs.begin());

  const Result<GraftReport> report = graft_checkpoint(graft);
  if (!report.ok()) return report.status();
  Json out;
  out["checkpoint"] = graft.out_dir;
  out["experts_per_layer"] = report->experts;
  out["experts_per_token"] = report->num_experts_per_tok;
  out["original_slots"] = report->original_slots;
  print_report(out, json);
  return {};
}

Status print_result(const Result<Json>& out, bool json) {
  if (out.ok()) print_report(*out, json);
  return out.status();
}

Status run_convert(const Words& words, bool json) {
  ConvertOptions convert;
  std::string type;
  po::options_description options;
  auto add = options.add_options();
  add("out", po::value(&convert.out)->required());
  add("type", po::value(&type));
  convert.from = only_argument(parse(words, options), "CHECKPOINT");
  if (!type.empty()) {
    convert.type = kStoredTypeNames.find(type);
    if (!convert.type) {
      usage(fmt::format("--type: \"{}\" (expected {})", type, kStoredTypeNames.choices()));
    }
  }
  const Result<ConvertReport> report = convert_checkpoint(convert);
  if (!report.ok()) return report.status();
  Json out;
  out["checkpoint"] = convert.out;
  out["tensors"] = report->tensors;
  out["bytes"] = report->bytes;
  print_report(out, json);
  return {};
}

Status run_pack(const Words& words, bool json) {
  PackOptions pack;
  std::string precision;
  po::options_description options;
  auto add = options.add_options();
  add("out", po::value(&pack.out)->required());
  add("precision", po::value(&precision)->default_value("q8"));
  pack.from = only_argument(parse(words, options), "MODULE");
  const auto named = kPrecisionNames.find(precision);
  if (!named || !packed_format(*named))
    usage(fmt::format("--precision: \"{}\" (expected q8 or q4)", precision));
  pack.precision = *named;
  const Result<PackReport> report = pack_module(pack);
  if (!report.ok()) return report.status();
  Json out;
  out["module"] = report->name;
  out["version"] = report->version;
  out["digest"] = report->digest;
  out["precision"] = kPrecisionNames.name(pack.precision);
  out["packed"] = report->packed;
  out["kept"] = report->kept;
  out["bytes"] = report->bytes;
  print_report(out, json);
  return {};
}

Status run_inspect(const Words& words, bool json) {
  Status verdict;
  const std::string dir = only_argument(parse(words, {}), "DIR or FILE.gguf");
  CHIMERA_RETURN_IF_ERROR(print_result(inspect_directory(dir, &verdict), json));
  return verdict;
}

Status run_verify(const Words& words, bool json) {
  std::string backbone, key;
  po::options_description options;
  options.add_options()("backbone", po::value(&backbone))("key", po::value(&key));
  const std::string dir = only_argument(parse(words, options), "MODULE");
  auto report = verify_module(dir, backbone);
  if (report.ok() && !key.empty()) {
    const auto comment = check_module_signature(dir, key);
    if (!comment.ok()) return comment.status();
    (*report)["signature"] = *comment;
  }
  return print_result(report, json);
}

Status run_sign(const Words& words, bool json) {
  std::string key, expires;
  po::options_description options;
  options.add_options()("key", po::value(&key)->required())("expires", po::value(&expires));
  const std::string dir = only_argument(parse(words, options), "MODULE");
  return print_result(sign_module(dir, key, expires), json);
}

Status run_fingerprint(const Words& words, bool json) {
  const Result<std::string> fingerprint =
      checkpoint_fingerprint(only_argument(parse(words, {}), "CHECKPOINT"));
  if (!fingerprint.ok()) return fingerprint.status();
  fmt::print("{}\n", json ? write_json({{"fingerprint", *fingerprint}}) : *fingerprint);
  return {};
}

Status run_seal(const Words& words, bool json) {
  std::string backbone;
  po::options_description options;
  options.add_options()("backbone", po::value(&backbone)->required());
  const std::string dir = only_argument(parse(words, options), "MODULE");
  return print_result(seal_module(dir, backbone), json);
}

using Command = Status (*)(const Words& words, bool json);
constexpr std::pair<const char*, Command> kCommands[] = {
    {"split", run_split},     {"graft", run_graft},       {"convert", run_convert},
    {"inspect", run_inspect}, {"verify", run_verify},     {"fingerprint", run_fingerprint},
    {"seal", run_seal},       {"sign", run_sign},         {"assemble", run_assemble},
    {"diff", run_diff},       {"fit-gate", run_fit_gate}, {"merge", run_merge},
    {"pack", run_pack},       {"backbone", run_backbone}};

}  // namespace

Status run_module_command(Words words, bool json) {
  if (words.empty()) usage("found no command (expected one)");
  const std::string name = words.front();
  words.erase(words.begin());
  for (const auto& [command, function] : kCommands) {
    if (name == command) return function(words, json);
  }
  usage(fmt::format("{}: unknown command", name));
}

}  // namespace chimera
