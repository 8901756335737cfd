// chimera-module: offline work on modules and checkpoints. `chimera module …` runs it.
//
// Without --json the output is for people; with it, one JSON object per line. Errors go to standard
// error; exit status 0 on success, 1 on an error, 2 on wrong usage.
#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <charconv>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "experts/cut.h"
#include "experts/module_report.h"

namespace {

namespace po = boost::program_options;
using chimera::Code;
using chimera::Result;
using chimera::Status;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

constexpr const char* kUsage = R"(Usage: chimera-module [--json] COMMAND ...

  split CHECKPOINT --backbone OUT --modules-out DIR --module NAME=SLOTS [--module ...]
        [--attach append|replace] [--license TEXT]
                          cut experts out of a checkpoint into modules
  graft BACKBONE MODULE... --out DIR
                          put backbone and modules together into one checkpoint
  inspect DIR             say what a module or checkpoint directory holds
  verify MODULE [--backbone DIR]
                          check digests, shapes and numbers, and the fit to a backbone
  fingerprint CHECKPOINT  print the backbone fingerprint
  seal MODULE --backbone DIR
                          write fingerprint and file digests into module.yaml

SLOTS are expert numbers of every layer, such as 2 or 2-5,7, or of single layers, such as 0:1,2;3:4
(layer 0: experts 1 and 2; layer 3: expert 4).
)";

struct Usage {
  std::string message;
};

[[noreturn]] void usage(std::string message) { throw Usage{std::move(message)}; }

/// "bytes: 12345" becomes "12.3 kB" for people.
std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 1000.0 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string human_value(const std::string& key, const Json& value) {
  if (key == "bytes") return human_bytes(value.get<double>());
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value) text += (text.empty() ? "" : ", ") + human_value("", item);
  return text;
}

void print(const Json& object, bool json) {
  if (json) {
    fmt::print("{}\n", object.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  size_t width = 0;
  for (const auto& [key, value] : object.items()) width = std::max(width, key.size());
  for (const auto& [key, value] : object.items()) {
    std::string label = key;
    std::replace(label.begin(), label.end(), '_', ' ');
    fmt::print("{:<{}}  {}\n", label, width, human_value(key, value));
  }
}

/// Whole text as a number from 0 to 65535.
int64_t number(std::string_view text, const std::string& what) {
  int64_t value = -1;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != end || value < 0 || value > 65535) {
    usage(fmt::format("{}: \"{}\" (expected a number from 0 to 65535)", what, text));
  }
  return value;
}

Words split_words(const std::string& text, char at) {
  Words parts{""};
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

/// "2-5,7"
std::vector<int64_t> parse_slots(const std::string& text) {
  std::vector<int64_t> slots;
  for (const std::string& part : split_words(text, ',')) {
    const size_t dash = part.find('-');
    const int64_t first = number(part.substr(0, dash), "slot");
    const int64_t last = dash == std::string::npos ? first : number(part.substr(dash + 1), "slot");
    if (last < first) usage(fmt::format("slots: \"{}\" (expected LOW-HIGH)", part));
    for (int64_t slot = first; slot <= last; ++slot) slots.push_back(slot);
  }
  return slots;
}

/// "NAME=2-5,7" or "NAME=0:1,2;3:4"
chimera::SplitModule parse_module(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    usage(fmt::format("--module: \"{}\" (expected NAME=SLOTS, e.g. legal=2-5,7)", text));
  }
  chimera::SplitModule module{text.substr(0, equals), {}};
  for (const std::string& part : split_words(text.substr(equals + 1), ';')) {
    const size_t colon = part.find(':');
    const int64_t layer = colon == std::string::npos ? -1 : number(part.substr(0, colon), "layer");
    const std::string slots = colon == std::string::npos ? part : part.substr(colon + 1);
    if (!module.slots.emplace(layer, parse_slots(slots)).second) {
      usage(fmt::format("--module: \"{}\" names a layer twice", text));
    }
  }
  return module;
}

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

Status run_split(const Words& words, bool json) {
  chimera::SplitOptions split;
  std::string attach;
  Words modules;
  po::options_description options;
  options.add_options()("backbone", po::value(&split.backbone_out)->required())(
      "modules-out", po::value(&split.modules_out)->required())(
      "module", po::value(&modules)->required())("attach",
                                                 po::value(&attach)->default_value("append"))(
      "license", po::value(&split.license)->default_value(split.license));
  split.checkpoint_dir = only_argument(parse(words, options), "CHECKPOINT");
  if (attach != "append" && attach != "replace") {
    usage(fmt::format("--attach: \"{}\" (expected append or replace)", attach));
  }
  split.attach = attach == "append" ? chimera::Attach::kAppend : chimera::Attach::kReplace;
  for (const std::string& module : modules) split.modules.push_back(parse_module(module));

  const Result<chimera::SplitReport> report = chimera::split_checkpoint(split);
  if (!report.ok()) return report.status();
  Json out;
  out["backbone"] = split.backbone_out;
  out["fingerprint"] = report->fingerprint;
  out["experts_per_layer"] = report->experts_left;
  out["experts_per_token"] = report->num_experts_per_tok;
  out["modules"] = report->module_dirs;
  if (report->num_experts_per_tok < report->original_num_experts_per_tok) {
    out["note"] = fmt::format(
        "the checkpoint used {} experts per token; give top_k: {} in the composition to compose "
        "it again",
        report->original_num_experts_per_tok, report->original_num_experts_per_tok);
  }
  print(out, json);
  return {};
}

Status run_graft(const Words& words, bool json) {
  chimera::GraftOptions graft;
  po::options_description options;
  options.add_options()("out", po::value(&graft.out_dir)->required());
  graft.module_dirs = parse(words, options)["args"].as<Words>();
  if (graft.module_dirs.size() < 2) usage("expected BACKBONE and at least one MODULE");
  graft.backbone_dir = graft.module_dirs.front();
  graft.module_dirs.erase(graft.module_dirs.begin());

  const Result<chimera::GraftReport> report = chimera::graft_checkpoint(graft);
  if (!report.ok()) return report.status();
  Json out;
  out["checkpoint"] = graft.out_dir;
  out["experts_per_layer"] = report->experts;
  out["experts_per_token"] = report->num_experts_per_tok;
  out["original_slots"] = report->original_slots;
  print(out, json);
  return {};
}

Status run_inspect(const Words& words, bool json) {
  const Result<Json> out = chimera::inspect_directory(only_argument(parse(words, {}), "DIR"));
  if (!out.ok()) return out.status();
  print(*out, json);
  return {};
}

Status run_verify(const Words& words, bool json) {
  std::string backbone;
  po::options_description options;
  options.add_options()("backbone", po::value(&backbone));
  const std::string dir = only_argument(parse(words, options), "MODULE");
  const Result<Json> out = chimera::verify_module(dir, backbone);
  if (!out.ok()) return out.status();
  print(*out, json);
  return {};
}

Status run_fingerprint(const Words& words, bool json) {
  const Result<std::string> fingerprint =
      chimera::checkpoint_fingerprint(only_argument(parse(words, {}), "CHECKPOINT"));
  if (!fingerprint.ok()) return fingerprint.status();
  fmt::print("{}\n", json ? Json{{"fingerprint", *fingerprint}}.dump() : *fingerprint);
  return {};
}

Status run_seal(const Words& words, bool json) {
  std::string backbone;
  po::options_description options;
  options.add_options()("backbone", po::value(&backbone)->required());
  const std::string dir = only_argument(parse(words, options), "MODULE");
  CHIMERA_RETURN_IF_ERROR(chimera::seal_module(dir, backbone));
  const Result<Json> out = chimera::verify_module(dir, backbone);
  if (!out.ok()) return out.status();
  print(*out, json);
  return {};
}

using Command = Status (*)(const Words& words, bool json);
constexpr std::pair<const char*, Command> kCommands[] = {{"split", run_split},
                                                         {"graft", run_graft},
                                                         {"inspect", run_inspect},
                                                         {"verify", run_verify},
                                                         {"fingerprint", run_fingerprint},
                                                         {"seal", run_seal}};

Status run(Words words) {
  const auto json_flag = std::find(words.begin(), words.end(), "--json");
  const bool json = json_flag != words.end();
  if (json) words.erase(json_flag);
  if (words.empty()) usage("found no command (expected one)");
  const std::string name = words.front();
  words.erase(words.begin());
  for (const auto& [command, function] : kCommands) {
    if (name == command) return function(words, json);
  }
  usage(fmt::format("{}: unknown command", name));
}

}  // namespace

int main(int argc, char** argv) {
  const Words words(argv + 1, argv + argc);
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    fmt::print("{}", kUsage);
    return 0;
  }
  std::string problem;
  try {
    const Status status = run(words);
    if (status.ok()) return 0;
    fmt::print(stderr, "chimera: {}\n", status.to_string());
    return 1;
  } catch (const Usage& error) {
    problem = error.message;
  } catch (const po::error& error) {
    problem = error.what();
  } catch (const std::exception& error) {  // std::bad_alloc and the like
    fmt::print(stderr, "chimera: {}\n", error.what());
    return 1;
  }
  fmt::print(stderr, "chimera: {}. See chimera-module --help.\n", problem);
  return 2;
}
