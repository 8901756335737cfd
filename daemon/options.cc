#include "daemon/options.h"

#include <boost/program_options.hpp>
#include <sstream>

#include "base/version.h"

namespace chimera {

namespace po = boost::program_options;

Result<Options> parse_options(int argc, const char* const* argv) {
  po::options_description known(
      "chimerad --config FILE [--check] [--log-level LEVEL]\n"
      "Serves a Mixture-of-Experts model and swaps its expert modules while it runs.\n"
      "SIGTERM or SIGINT drains (at most 30 s) and exits; a second one stops at once.\n"
      "SIGHUP reads the deployment again: it takes over the watch directories, looks at\n"
      "them anew, and logs what else differs and needs a restart or `chimera apply`.\n"
      "Exit status: 0 ended well, 1 failed, 2 wrong usage");
  known.add_options()("config", po::value<std::string>(), "deployment file (YAML)")(
      "check", "check the deployment and what it names, print a summary and exit")(
      "log-level", po::value<std::string>()->default_value("info"),
      "debug, info, warning or error; the log goes to standard error")(
      "version", "print the version and exit")("help", "print this text and exit");
  po::variables_map given;
  try {
    // No abbreviations: a script that relies on one breaks when an option is added.
    constexpr int kStyle =
        po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(known).positional({}).style(kStyle).run(),
              given);
  } catch (const po::error& e) {
    return Status(Code::kInvalidArgument, e.what(), "chimerad --help lists the options");
  }
  Options options;
  if (given.contains("help")) {
    std::ostringstream text;
    text << known << '\n';
    options.answer = text.str();
    return options;
  }
  if (given.contains("version")) {
    options.answer = std::string("chimerad ") + version() + "\n";
    return options;
  }
  if (!given.contains("config")) {
    return Status(Code::kInvalidArgument, "--config: missing (expected a deployment file)",
                  "For example: chimerad --config configs/demo.yaml");
  }
  const Result<log::Level> level = log::parse_level(given["log-level"].as<std::string>());
  if (!level.ok()) return level.status();
  options.config = given["config"].as<std::string>();
  options.check = given.contains("check");
  options.log_level = *level;
  return options;
}

}  // namespace chimera
