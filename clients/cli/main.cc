// `chimera`: the command line of the Chimera daemon.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>

#include "commands.h"
#include "help.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

volatile std::sig_atomic_t ctrl_c_seen = 0;

void on_interrupt(int) {
  // The second Ctrl-C ends the program whatever it is waiting for.
  if (ctrl_c_seen != 0) _exit(kInterruptedStatus);
  ctrl_c_seen = 1;
}

void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART, so that waiting calls notice
  sigaction(SIGINT, &action, nullptr);
}

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
  try {
    return command.run({client, out, std::move(arguments), options});
  } catch (const Json::exception& problem) {
    return Error{"internal", fmt::format("answer: {}", problem.what()),
                 "client and daemon may be of different versions"};
  }
}

/// Long options only, so that "-0.5" and "-" are arguments.
constexpr int kStyle = po::command_line_style::allow_long |
                       po::command_line_style::long_allow_adjacent |
                       po::command_line_style::long_allow_next;

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
    std::cout << "chimera " << CHIMERA_VERSION << "\n";
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

}  // namespace

bool interrupted() { return ctrl_c_seen != 0; }

bool clear_interrupt() {
  const bool seen = interrupted();
  ctrl_c_seen = 0;
  return seen;
}

}  // namespace chimera::cli

int main(int argc, char** argv) {
  using namespace chimera::cli;
  watch_interrupts();
  Outcome outcome = 1;
  try {
    outcome = dispatch(argc, argv);
  } catch (const boost::program_options::error& problem) {
    outcome =
        Error{"invalid_argument", std::string("options: ") + problem.what(), "see: chimera --help"};
  } catch (const std::exception& problem) {
    outcome = Error{"internal", problem.what(), ""};
  }
  if (const auto* status = std::get_if<int>(&outcome)) return *status;
  print_error(std::get<Error>(outcome));
  return interrupted() ? kInterruptedStatus : 1;
}
