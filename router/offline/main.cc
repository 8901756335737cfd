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
#include "router/offline/usage.h"

namespace {

using chimera::Code;
using chimera::Status;

constexpr int kFailed = 1, kWrongUsage = 2, kTryAgain = 75;

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
    fmt::print("{}", chimera::kModuleUsage);
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
