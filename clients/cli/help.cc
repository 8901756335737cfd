#include "help.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <vector>

#include "clients/wire/endpoints.h"

namespace chimera::cli {

namespace po = boost::program_options;

po::options_description global_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  add("endpoint", po::value<std::string>()->value_name("E"), "serve endpoint of the daemon");
  add("control", po::value<std::string>()->value_name("E"), "control endpoint of the daemon");
  add("key", po::value<std::string>()->value_name("FILE"),
      "secret key of this client ($CHIMERA_KEY)");
  add("server-key", po::value<std::string>()->value_name("FILE"),
      "key of the daemon ($CHIMERA_SERVER_KEY)");
  add("json", po::bool_switch(), "one JSON object per line instead of text");
  add("help", po::bool_switch(), "this text, or that of a command");
  add("version", po::bool_switch(), "print the version");
  return options;
}

namespace {

/// One command of the list; where it leaves no room for what it does, that has a line of its own.
std::string listed(const std::string& command, std::string_view summary) {
  constexpr size_t kColumn = 35;
  if (command.size() < kColumn) return fmt::format("  {:<{}}{}\n", command, kColumn, summary);
  return fmt::format("  {}\n  {:<{}}{}\n", command, "", kColumn, summary);
}

}  // namespace

void print_help(const std::vector<Command>& commands) {
  std::cout << "usage: chimera [--endpoint E] [--control E] [--json] COMMAND …\n\n";
  for (const Command& command : commands) {
    std::cout << listed(command.name + " " + command.usage, command.summary);
  }
  std::cout << listed("module COMMAND", "split, convert, assemble, diff … offline")
            << listed("backbone COMMAND", "pack, verify: packed checkpoints");
  std::cout << "\n" << global_options();
  std::cout << "\nWithout endpoints:\n  " << wire::default_serve_endpoint() << "\n  "
            << wire::default_control_endpoint() << "\n`chimera COMMAND --help` tells more.\n"
            << fmt::format(
                   "Exit status: 0 done, {} failed, {} wrong usage, {} try again (the daemon is\n"
                   "busy, draining or not there), {} interrupted by Ctrl-C.\n",
                   kFailedStatus, kUsageStatus, kTryAgainStatus, kInterruptedStatus);
}

void print_help(const Command& command) {
  std::cout << "usage: chimera " << command.name << " " << command.usage << "\n  "
            << command.summary << "\n";
  if (command.add_options) {
    po::options_description options("\nOptions");
    command.add_options(options);
    std::cout << options << "\n";
  }
}

Outcome run_module_program(char** arguments, bool json) {
  std::error_code failed;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
  std::string program = (self.parent_path() / "chimera-module").string();
  std::string json_option = "--json";
  std::vector<char*> words{program.data()};
  if (json) words.push_back(json_option.data());
  for (; *arguments != nullptr; ++arguments) words.push_back(*arguments);
  words.push_back(nullptr);
  execv(program.c_str(), words.data());
  return Error{"not_found", fmt::format("{}: {}", program, std::strerror(errno)),
               "it belongs beside chimera; build the target chimera-module"};
}

}  // namespace chimera::cli
