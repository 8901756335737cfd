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
  add_embed_command(commands);
  add_token_commands(commands);
  add_listing_commands(commands);
  add_control_commands(commands);
  add_blend_command(commands);
  add_canary_command(commands);
  add_job_commands(commands);
  add_status_commands(commands);
  add_top_command(commands);
  add_trust_commands(commands);
  add_receipt_command(commands);
  add_usage_command(commands);
  return commands;
}

/// Index of the command among the arguments: the first that is no global option nor its value.
int command_index(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--endpoint" || argument == "--control" || argument == "--key" ||
        argument == "--server-key") {
      ++i;
    } else if (!argument.starts_with("--")) {
      return i;
    }
  }
  return argc;
}

/// Whatever is sent must be UTF-8; names of files that are opened here may be anything.
std::optional<Error> check_words(const Command& command, const po::variables_map& options,
                                 const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size() && !command.usage.starts_with("FILE"); ++i) {
    if (auto error = check_text(fmt::format("{}: argument {}", command.name, i + 1), arguments[i]))
      return error;
  }
  for (const auto& [name, value] : options) {
    const auto* one = boost::any_cast<std::string>(&value.value());
    const auto* many = boost::any_cast<std::vector<std::string>>(&value.value());
    if (name == "argument" || name == "key" || name == "server-key" ||
        (one == nullptr && many == nullptr))
      continue;
    for (const std::string& text : many != nullptr ? *many : std::vector<std::string>{*one}) {
      if (auto error = check_text("--" + name, text)) return error;
    }
  }
  return std::nullopt;
}

Outcome run_command(const Command& command, const po::variables_map& options,
                    std::vector<std::string> arguments) {
  if (arguments.size() < command.min_arguments || arguments.size() > command.max_arguments) {
    return bad_usage(fmt::format("{}: {} argument{} (expected {}{}{})", command.name,
                                 arguments.size(), arguments.size() == 1 ? "" : "s", command.name,
                                 command.usage.empty() ? "" : " ", command.usage),
                     fmt::format("see: chimera {} --help", command.name));
  }
  if (auto error = check_words(command, options, arguments)) return std::move(*error);
  client::Options where;
  if (options.count("endpoint") > 0) where.serve = options["endpoint"].as<std::string>();
  if (options.count("control") > 0) where.control = options["control"].as<std::string>();
  if (options.count("key") > 0) where.key = options["key"].as<std::string>();
  if (options.count("server-key") > 0) where.server_key = options["server-key"].as<std::string>();
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
  if (name == "module" || name == "backbone") {
    const bool json = std::find(argv + 1, argv + at, std::string_view("--json")) != argv + at;
    return run_module_program(name == "module" ? argv + at + 1 : argv + at, json);
  }
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
  const bool help = options["help"].as<bool>();
  if (name == "-h" || (help && name.empty())) {
    print_help(commands);
    return 0;
  }
  if (command == commands.end()) {
    return bad_usage(name.empty()
                         ? "no command given (expected one)"
                         : fmt::format("command: {} (expected one of those in --help)", name),
                     "see: chimera --help");
  }
  if (help) {
    print_help(*command);
    return 0;
  }
  auto arguments = options["argument"].as<std::vector<std::string>>();
  arguments.erase(arguments.begin());  // the command itself
  return run_command(*command, options, std::move(arguments));
}

}  // namespace chimera::cli
