// Options that the daemon benches share.
//
// Thread safety: free functions, by the main thread.
#pragma once

#include <boost/program_options.hpp>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "daemon_process.h"

namespace chimera::bench {

/// --backbone, --precision, --threads, --module …; further options are added by the caller.
inline boost::program_options::options_description daemon_options(DeploymentOptions& o) {
  namespace po = boost::program_options;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("backbone", po::value(&o.backbone)->required(), "checkpoint directory");
  d.add_options()("precision", po::value(&o.precision)->default_value("bf16"),
                  "f32 | bf16 | q8 | q4");
  d.add_options()("threads", po::value(&o.threads)->default_value(0), "compute threads; 0 = auto");
  d.add_options()("module", po::value(&o.modules)->composing(), "module directory, repeatable");
  return d;
}

/// Parses `args`; an exit status when the program should end now.
inline std::optional<int> parse(const boost::program_options::options_description& description,
                                const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  try {
    po::variables_map vm;
    po::store(po::command_line_parser(args).options(description).run(), vm);
    if (vm.count("help") != 0) {
      std::cout << description;
      return 0;
    }
    po::notify(vm);
  } catch (const po::error& error) {
    std::cerr << "chimera-bench: " << error.what() << "\n" << description;
    return 2;
  }
  return std::nullopt;
}

}  // namespace chimera::bench
