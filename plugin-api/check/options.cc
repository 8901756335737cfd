#include "check/options.h"

#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>

#include "base/version.h"
#include "check/cases/case.h"

namespace chimera::check {
namespace {

namespace po = boost::program_options;

constexpr const char* kHelp = R"(Usage: chimera-plugin-check MODULE_DIR|LIBRARY.so [OPTION]...
Tries an expert plugin against the contract of chimera/expert.h: 47 cases, each
in a process of its own with a time limit, so that a plugin that crashes or
hangs spoils one verdict. Verdicts: pass, warn, fail, skip (and why).

With a module directory the manifest, its digests, the configuration and the
tensors are used too; with a library alone the cases about them are skipped.
)";

constexpr const char* kHelpEnd = R"(
Levels: gate      what a daemon may ask before it loads a plugin; seconds
        normal    all 47 cases
        strict    more rounds; warnings count as failures
        soak      a thousand load cycles and the like; minutes

Exit status: 0 it conforms, 1 it does not (or the verdicts could not be
printed), 2 the call was wrong.
JSON: one object per line, {"type":"case","case","group","name","verdict",
"text","promise","seconds","reproduce","output"} for each case, then
{"type":"summary","conforms",...}. docs/plugin-checker.md explains every case.
)";

po::options_description described(Options& o) {
  po::options_description d("Options", 78, 40);
  d.add_options()("level", po::value<std::string>()->default_value("normal"),
                  "gate, normal, strict or soak")("json", po::bool_switch(&o.json),
                                                  "one JSON object per line")(
      "seed", po::value<uint64_t>(&o.run.seed), "of all random input; else drawn, and printed")(
      "case", po::value<std::string>(), "numbers or names, e.g. 27,strides")(
      "reproduce", po::value<std::string>(), "CASE:SEED, as printed: that case with that seed")(
      "list", po::bool_switch(&o.list), "the cases and what each promises")(
      "reference", po::value<std::string>(&o.subject.reference),
      "weights of the same experts (a weights module or .safetensors), for case 32")(
      "tolerance", po::value<double>(&o.subject.tolerance)->default_value(1e-3),
      "largest distance from them, as a share of a row's length")(
      "allow", po::value<std::vector<std::string>>(&o.subject.allowed_libraries),
      "a library it may need, e.g. libgomp.so.1; may be repeated")(
      "time-factor", po::value<double>(&o.run.time_factor)->default_value(1.0),
      "stretches the time limits, e.g. 10 under valgrind")(
      "in-process", po::bool_switch(&o.run.in_process),
      "no process of its own for the case, for debuggers")("verbose,v", po::bool_switch(&o.verbose),
                                                           "what the plugin printed, too")(
      "version", "print the version")("help,h", "this text");
  return d;
}

std::set<int> cases_named(const std::string& text) {
  std::set<int> out;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t before = out.size();
    for (const Case& c : all_cases()) {
      if (part == c.name || part == std::to_string(c.number) ||
          part == fmt::format("{}{}", c.group, c.number)) {
        out.insert(c.number);
      }
    }
    if (out.size() == before) usage("--case: found \"" + part + "\" (expected 1 to 47 or a name)");
  }
  return out;
}

Level level_named(const std::string& text) {
  for (const Level level : {Level::kGate, Level::kNormal, Level::kStrict, Level::kSoak}) {
    if (level_name(level) == text) return level;
  }
  usage("--level: found \"" + text + "\" (expected gate, normal, strict or soak)");
}

void read_reproduce(const std::string& text, Options& o) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) usage("--reproduce: found \"" + text + "\" (expected CASE:SEED)");
  o.cases = cases_named(text.substr(0, colon));
  char* end = nullptr;
  o.run.seed = std::strtoull(text.c_str() + colon + 1, &end, 10);
  if (end == text.c_str() + colon + 1 || *end != '\0') {
    usage("--reproduce: found \"" + text + "\" (expected a number behind the colon)");
  }
  o.verbose = true;
}

}  // namespace

void usage(const std::string& what) { throw Usage{what}; }

Options read_options(int argc, char** argv) {
  Options o;
  std::random_device device;
  o.run.seed = device();
  auto shown = described(o);
  po::options_description all;
  all.add(shown).add_options()("path", po::value<std::string>(&o.subject.path));
  po::positional_options_description places;
  places.add("path", 1);
  po::variables_map map;
  try {
    po::store(po::command_line_parser(argc, argv).options(all).positional(places).run(), map);
    po::notify(map);
  } catch (const po::error& e) {
    usage(e.what());
  }
  if (map.count("help") != 0) {
    std::ostringstream text;
    text << kHelp << "\n" << shown << kHelpEnd;
    o.answer = text.str();
    return o;
  }
  if (map.count("version") != 0) {
    o.answer = std::string("chimera-plugin-check ") + version() + "\n";
    return o;
  }
  o.run.level = level_named(map["level"].as<std::string>());
  if (map.count("case") != 0) o.cases = cases_named(map["case"].as<std::string>());
  if (map.count("reproduce") != 0) read_reproduce(map["reproduce"].as<std::string>(), o);
  if (!o.list && o.subject.path.empty())
    usage("no plugin given (expected MODULE_DIR or LIBRARY.so)");
  if (o.run.in_process && o.cases.size() != 1) usage("--in-process: expected one case (--case N)");
  return o;
}

}  // namespace chimera::check
