#include "daemon/options.h"

#include "base/options/service_options.h"

namespace chimera {

namespace po = boost::program_options;

Result<Options> parse_options(int argc, const char* const* argv) {
  po::options_description known(
      "chimerad --config FILE [--check] [--log-level LEVEL] [--log-format FORMAT]\n"
      "Serves a Mixture-of-Experts model and swaps its expert modules while it runs.\n"
      "SIGTERM or SIGINT drains (at most 30 s) and exits; a second one stops at once.\n"
      "SIGHUP reads the deployment again: it takes over the watch directories, looks at\n"
      "them anew, and logs what else differs and needs a restart or `chimera apply`.\n"
      "Exit status: 0 ended well, 1 failed, 2 wrong usage");
  known.add_options()("config", po::value<std::string>(), "deployment file (YAML)")(
      "check", "check the deployment and what it names, print a summary and exit");
  Result<ServiceOptions> parsed = parse_service_options("chimerad", known, argc, argv);
  if (!parsed.ok()) return parsed.status();
  const po::variables_map& given = parsed->given;
  Options options;
  options.answer = parsed->answer;
  options.log_level = parsed->log_level;
  options.log_format = parsed->log_format;
  if (!options.answer.empty()) return options;
  if (!given.contains("config")) {
    return Status(Code::kInvalidArgument, "--config: missing (expected a deployment file)",
                  "For example: chimerad --config configs/demo.yaml");
  }
  options.config = given["config"].as<std::string>();
  options.check = given.contains("check");
  return options;
}

}  // namespace chimera
