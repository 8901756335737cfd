// chimera-module: offline work on modules and checkpoints. `chimera module …` runs it.
//
// Without --json the output is for people; with it, one JSON object per line. Errors go to standard
// error, as an object too with --json; exit status 0 on success, 1 on an error, 2 on wrong usage,
// 75 (EX_TEMPFAIL) on what may work later.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>

#include "base/json/writer.h"
#include "base/standard_output.h"
#include "base/version.h"
#include "router/offline/module_commands.h"

namespace {

using chimera::Code;
using chimera::Status;

constexpr int kFailed = 1, kWrongUsage = 2, kTryAgain = 75;

constexpr const char* kUsage = R"(Usage: chimera-module [--json] COMMAND ...
       chimera-module --help | --version

  split CHECKPOINT --backbone OUT --modules-out DIR --module NAME=SLOTS
        [--module ...] [--map FILE] [--attach append|replace] [--license TEXT]
                          cut experts out of a checkpoint into modules
  split FINETUNE --parent CHECKPOINT --modules-out DIR --module NAME
        [--license TEXT]
                          make what a fine-tune changed a module of its parent
  graft BACKBONE MODULE... --out DIR
                          put backbone and modules together into one checkpoint
  convert CHECKPOINT --out DIR [--type f32|f16|bf16]
                          write a checkpoint, or a GGUF file, as safetensors
  inspect PATH            say what a module or checkpoint holds, and if it runs;
                          exit status 1 when Chimera would refuse the checkpoint
  verify MODULE [--backbone DIR] [--key FILE.pub]
                          check digests, shapes, numbers, the backbone's fit and
                          who signed it
  fingerprint CHECKPOINT  print the backbone fingerprint
  seal MODULE --backbone DIR
                          write fingerprint and file digests into module.yaml
  sign MODULE --key FILE [--expires DAY]
                          sign module.yaml, which names every file's digest
  assemble RECIPE.yaml --out DIR [--memory SIZE] [--threads N]
        [--shard-size SIZE]
                          make a checkpoint or module from parents by a recipe;
                          a run that was killed goes on where it was
  assemble RECIPE.yaml --dry-run
                          say what that would do, tensor by tensor
  fit-gate MODULE --backbone DIR --text FILE... [--against FILE...] --out DIR
        [--limit-bytes N] [--prior X] [--rounds N] [--precision P] [--threads N]
                          write the module with gate rows fitted to texts that
                          it is for, and to others
  diff A B [--csv] [--plot FILE.svg] [--spectrum N] [--threads N]
                          how far two checkpoints or modules are apart, where

A CHECKPOINT is the directory of one in safetensors, or a GGUF file.

SLOTS are expert numbers of every layer with a router, such as 2 or 2-5,7, or of
single layers, such as 0:1,2;3:4 (layer 0: experts 1 and 2; layer 3: expert 4).
--map FILE takes them from a YAML map:

  legal: 2-5,7
  bio: {0: [1, 2], 3-5: 4}

Exit status: 0 done, 1 failed, 2 wrong usage, 75 try again (out of space or
memory).
)";

void print_error(const Status& error, bool json) {
  if (!json) {
    fmt::print(stderr, "chimera: {}\n", error.to_string());
    return;
  }
  const chimera::Json object = {{"event", "error"},
                                {"code", code_name(error.code())},
                                {"message", error.message()},
                                {"hint", error.hint()}};
  fmt::print(stderr, "{}\n", write_json(object));
}

int run(std::vector<std::string> words, bool json) {
  std::string problem;
  try {
    const Status status = chimera::run_module_command(std::move(words), json);
    if (status.ok()) return 0;
    print_error(status, json);
    return status.code() == Code::kResourceExhausted ? kTryAgain : kFailed;
  } catch (const chimera::ModuleUsage& error) {
    problem = error.message;
  } catch (const boost::program_options::error& error) {
    problem = error.what();
  } catch (const std::exception& error) {  // std::bad_alloc and the like
    print_error({Code::kInternal, error.what()}, json);
    return kFailed;
  }
  print_error({Code::kInvalidArgument, problem, "See chimera-module --help"}, json);
  return kWrongUsage;
}

}  // namespace

int main(int argc, char** argv) {
  chimera::guard_standard_streams();
  std::vector<std::string> words(argv + 1, argv + argc);
  const auto given = [&](const char* word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  const bool json = given("--json");
  std::erase(words, "--json");
  int status = 0;
  if (given("--help")) {
    fmt::print("{}", kUsage);
  } else if (given("--version")) {
    fmt::print("chimera-module {}\n", chimera::version());
  } else {
    status = run(std::move(words), json);
  }
  const Status output = chimera::flush_standard_output();
  if (output.ok()) return status;
  print_error(output, json);
  return status == 0 ? kFailed : status;
}
