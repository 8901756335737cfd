#include "clients/gateway/options.h"

#include "base/options/service_options.h"

namespace chimera::gateway {

namespace po = boost::program_options;

Result<Options> parse_options(int argc, const char* const* argv) {
  po::options_description known(
      "chimera-gateway [--config FILE] [--check] [--log-level L] [--log-format F]\n"
      "Serves the daemon over HTTP: the API of OpenAI, and its own calls.\n"
      "Without a configuration it listens on 127.0.0.1:8080 and speaks to the daemon of\n"
      "this user. The first start makes a key for its administrator.\n"
      "SIGTERM or SIGINT ends it when the streams in progress have ended; a second one\n"
      "stops at once. SIGHUP reads the file of keys again.\n"
      "Exit status: 0 ended well, 1 failed, 2 wrong usage");
  known.add_options()("config", po::value<std::string>(), "configuration (YAML)")(
      "check", "check the configuration and its files, and exit")(
      "new-key", po::value<std::string>(),
      "make a key for this principal, print it and its entry in the file of keys, and exit");
  Result<ServiceOptions> parsed = parse_service_options("chimera-gateway", known, argc, argv);
  if (!parsed.ok()) return parsed.status();
  const po::variables_map& given = parsed->given;
  Options options;
  options.answer = parsed->answer;
  options.log_level = parsed->log_level;
  options.log_format = parsed->log_format;
  if (!options.answer.empty()) return options;
  if (given.contains("config")) options.config = given["config"].as<std::string>();
  if (given.contains("new-key")) options.new_key = given["new-key"].as<std::string>();
  options.check = given.contains("check");
  return options;
}

}  // namespace chimera::gateway
