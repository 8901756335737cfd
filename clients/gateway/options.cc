#include "clients/gateway/options.h"

#include <boost/program_options.hpp>
#include <sstream>

#include "base/version.h"

namespace chimera::gateway {

namespace po = boost::program_options;

Result<Options> parse_options(int argc, const char* const* argv) {
  po::options_description known(
      "chimera-gateway [--config FILE] [--check] [--log-level LEVEL]\n"
      "Serves the daemon over HTTP: the API of OpenAI, and its own calls.\n"
      "Without a configuration it listens on 127.0.0.1:8080 and speaks to the daemon of\n"
      "this user. The first start makes a key for its administrator.\n"
      "SIGTERM or SIGINT ends it when the streams in progress have ended; a second one\n"
      "stops at once. SIGHUP reads the file of keys again.\n"
      "Exit status: 0 ended well, 1 failed, 2 wrong usage");
  known.add_options()("config", po::value<std::string>(), "configuration (YAML)")(
      "check", "check the configuration and its files, and exit")(
      "new-key", po::value<std::string>(),
      "make a key for this principal, print it and its entry in the file of keys, and exit")(
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
    return Status(Code::kInvalidArgument, e.what(), "chimera-gateway --help lists the options");
  }
  Options options;
  if (given.contains("help")) {
    std::ostringstream text;
    text << known << '\n';
    options.answer = text.str();
    return options;
  }
  if (given.contains("version")) {
    options.answer = std::string("chimera-gateway ") + version() + "\n";
    return options;
  }
  const Result<log::Level> level = log::parse_level(given["log-level"].as<std::string>());
  if (!level.ok()) return level.status();
  if (given.contains("config")) options.config = given["config"].as<std::string>();
  if (given.contains("new-key")) options.new_key = given["new-key"].as<std::string>();
  options.check = given.contains("check");
  options.log_level = *level;
  return options;
}

}  // namespace chimera::gateway
