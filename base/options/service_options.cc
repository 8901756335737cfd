#include "base/options/service_options.h"

#include <sstream>

#include "base/version.h"

namespace chimera {

namespace po = boost::program_options;

Result<ServiceOptions> parse_service_options(const std::string& program,
                                             po::options_description known, int argc,
                                             const char* const* argv) {
  known.add_options()("log-level", po::value<std::string>()->default_value("info"),
                      "debug, info, warning or error; the log goes to standard error")(
      "log-format", po::value<std::string>()->default_value("text"),
      "text, or json: one object per line")("version", "print the version and exit")(
      "help", "print this text and exit");
  ServiceOptions options;
  try {
    // No abbreviations: a script that relies on one breaks when an option is added.
    constexpr int kStyle =
        po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(known).positional({}).style(kStyle).run(),
              options.given);
  } catch (const po::error& e) {
    return Status(Code::kInvalidArgument, e.what(), program + " --help lists the options");
  }
  if (options.given.contains("help")) {
    std::ostringstream text;
    text << known << '\n';
    options.answer = text.str();
  } else if (options.given.contains("version")) {
    options.answer = program + " " + version() + "\n";
  } else {
    const auto level = log::parse_level(options.given["log-level"].as<std::string>());
    if (!level.ok()) return level.status();
    options.log_level = *level;
    const auto format = log::parse_format(options.given["log-format"].as<std::string>());
    if (!format.ok()) return format.status();
    options.log_format = *format;
  }
  return options;
}

}  // namespace chimera
