#include "dispatch.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "base/version.h"
#include "help.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

std::vector<Command> all_commands() {
  std::vector<Command> commands;
  add_generation_commands(commands);
  add_chat_command(commands);
  add_score_command(commands);
  add_control_commands(commands);
  add_status_commands(commands);
  return commands;
}

/// Index of the command among the arguments: the first that is no global option nor its value.
int command_index(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--endpoint" || argument == "--control") {
      ++i;
    } else if (!argument.starts_with("--")) {
      return i;
    }
  }
  return argc;
}

Outcome run_command(const Command& command, const po::variables_map& options,
                    std::vector<std::string> arguments) {
  if (arguments.size() < command.min_arguments || arguments.size() > command.max_arguments) {
    return Error{"invalid_argument",
                 fmt::format("{}: {} arguments (expected {} {})", command.name, arguments.size(),
                             command.name, command.usage),
                 fmt::format("see: chimera {} --help", command.name)};
  }
  client::Options where;
  if (options.count("endpoint") > 0) where.serve = options["endpoint"].as<std::string>();
  if (options.count("control") > 0) where.control = options["control"].as<std::string>();
  client::Client client(where);
  const Output out(options["json"].as<bool>());
  return command.run({client, out, std::move(arguments), options});
}

/// Long options only, so that "-0.5" and "-" are arguments.
constexpr int kStyle = po::command_line_style::allow_long |
                       po::command_line_style::long_allow_adjacent |
                       po::command_line_style::long_allow_next;

}  // namespace

Outcome dispatch(int argc, char** argv) {
  const auto commands = all_commands();
  const int at = command_index(argc, argv);
  const std::string name = at < argc ? argv[at] : "";
  if (name == "module") return run_module_program(argv + at);
  const auto command = std::find_if(commands.begin(), commands.end(),
                                    [&](const Command& one) { return one.name == name; });

  po::options_description known = global_options();
  if (command != commands.end() && command->add_options) command->add_options(known);
  po::options_description hidden = known;
  hidden.add_options()("argument", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("argument", -1);
  po::variables_map options;
  po::store(po::command_line_parser(argc, argv)
                .options(hidden)
                .positional(positional)
                .style(kStyle)
                .run(),
            options);
  po::notify(options);

  if (options["version"].as<bool>()) {
    std::cout << "chimera " << version() << "\n";
    return 0;
  }
  if (options["help"].as<bool>() || name == "-h") {
    command == commands.end() ? print_help(commands) : print_help(*command);
    return 0;
  }
  if (command == commands.end()) {
    return Error{"invalid_argument",
                 name.empty() ? "no command given (expected one)"
                              : fmt::format("command: {} (expected one of those in --help)", name),
                 "see: chimera --help"};
  }
  auto arguments = options["argument"].as<std::vector<std::string>>();
  arguments.erase(arguments.begin());  // the command itself
  return run_command(*command, options, std::move(arguments));
}

}  // namespace chimera::cli
