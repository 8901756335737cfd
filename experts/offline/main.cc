// chimera-module: offline work on modules and checkpoints. `chimera module …` runs it.
//
// Without --json the output is for people; with it, one JSON object per line. Errors go to standard
// error; exit status 0 on success, 1 on an error, 2 on wrong usage.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>

#include "base/version.h"
#include "experts/offline/module_commands.h"

namespace {

constexpr const char* kUsage = R"(Usage: chimera-module [--json] COMMAND ... | --help | --version

  split CHECKPOINT --backbone OUT --modules-out DIR --module NAME=SLOTS
        [--module ...] [--map FILE] [--attach append|replace] [--license TEXT]
                          cut experts out of a checkpoint into modules
  split FINETUNE --parent CHECKPOINT --modules-out DIR --module NAME
        [--license TEXT]
                          make what a fine-tune changed a module of its parent
  graft BACKBONE MODULE... --out DIR
                          put backbone and modules together into one checkpoint
  inspect DIR             say what a module or checkpoint holds, and if it runs;
                          exit status 1 when Chimera would refuse the checkpoint
  verify MODULE [--backbone DIR]
                          check digests, shapes, numbers and the backbone's fit
  fingerprint CHECKPOINT  print the backbone fingerprint
  seal MODULE --backbone DIR
                          write fingerprint and file digests into module.yaml

SLOTS are expert numbers of every layer with a router, such as 2 or 2-5,7, or of
single layers, such as 0:1,2;3:4 (layer 0: experts 1 and 2; layer 3: expert 4).
--map FILE takes them from a YAML map:

  legal: 2-5,7
  bio: {0: [1, 2], 3-5: 4}
)";

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    fmt::print("{}", kUsage);
    return 0;
  }
  if (words.size() == 1 && words[0] == "--version") {
    fmt::print("chimera-module {}\n", chimera::version());
    return 0;
  }
  const auto json_flag = std::find(words.begin(), words.end(), "--json");
  const bool json = json_flag != words.end();
  if (json) words.erase(json_flag);
  std::string problem;
  try {
    const chimera::Status status = chimera::run_module_command(std::move(words), json);
    if (status.ok()) return 0;
    fmt::print(stderr, "chimera: {}\n", status.to_string());
    return 1;
  } catch (const chimera::ModuleUsage& error) {
    problem = error.message;
  } catch (const boost::program_options::error& error) {
    problem = error.what();
  } catch (const std::exception& error) {  // std::bad_alloc and the like
    fmt::print(stderr, "chimera: {}\n", error.what());
    return 1;
  }
  fmt::print(stderr, "chimera: {}. See chimera-module --help.\n", problem);
  return 2;
}
