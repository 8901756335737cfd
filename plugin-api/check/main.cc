// chimera-plugin-check: does this expert plugin keep the contract of chimera/expert.h?
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/json/writer.h"
#include "base/standard_output.h"
#include "check/options.h"
#include "check/report.h"

namespace {

using namespace chimera::check;

void list_cases() {
  for (const Case& c : all_cases()) {
    std::printf("%s%-2d %-20s %-7s %s\n", std::string(1, c.group).c_str(), c.number, c.name,
                std::string(level_name(c.level)).c_str(), c.promise);
  }
}

std::string make_work_dir() {
  std::string dir =
      (std::filesystem::temp_directory_path() / "chimera-plugin-check-XXXXXX").string();
  if (mkdtemp(dir.data()) == nullptr) usage("no temporary directory (set TMPDIR)");
  return dir;
}

int check_all(const Options& o, const Subject& subject) {
  const bool colour = !o.json && isatty(1) != 0;
  Summary summary{subject.library, o.run.level, o.run.seed};
  const std::string work_dir = make_work_dir();
  if (!o.json) std::printf("%s\n\n", subject.library.c_str());
  for (const Case& c : all_cases()) {
    if (!o.cases.empty() && o.cases.count(c.number) == 0) continue;
    const CaseResult result = run_case(c, subject, o.run, work_dir);
    summary.add(result);
    std::fputs((o.json ? json_line(result, o.run.seed) : human_line(result, colour)).c_str(),
               stdout);
    if (o.verbose && !o.json && !result.output.empty()) std::printf("%s\n", result.output.c_str());
    std::fflush(stdout);
  }
  std::error_code error;
  std::filesystem::remove_all(work_dir, error);
  std::fputs((o.json ? json_summary(summary) : human_summary(summary, colour)).c_str(), stdout);
  return summary.conforms() ? kConforms : kDoesNot;
}

int run(int argc, char** argv) {
  const Options options = read_options(argc, argv);
  if (!options.answer.empty()) {
    std::fputs(options.answer.c_str(), stdout);
    return kConforms;
  }
  if (options.list) {
    list_cases();
    return kConforms;
  }
  const auto subject = open_subject(options.subject);
  if (const auto* problem = std::get_if<std::string>(&subject)) usage(*problem);
  return check_all(options, std::get<Subject>(subject));
}

bool json_wanted(int argc, char** argv) {
  return std::any_of(argv, argv + argc,
                     [](const char* word) { return std::string_view(word) == "--json"; });
}

void print_error(const char* code, const std::string& message, const char* hint, bool json) {
  if (!json) {
    std::fprintf(stderr, "chimera-plugin-check: %s. %s.\n", message.c_str(), hint);
    return;
  }
  const chimera::Json object = {
      {"event", "error"}, {"code", code}, {"message", message}, {"hint", hint}};
  std::fprintf(stderr, "%s\n", write_json(object).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  chimera::guard_standard_streams();
  const bool json = json_wanted(argc, argv);
  int status = kUsage;
  try {
    status = run(argc, argv);
  } catch (const Usage& wrong) {
    print_error("invalid_argument", wrong.what, "See --help", json);
  }
  const chimera::Status output = chimera::flush_standard_output();
  if (output.ok()) return status;
  print_error("data_corrupt", output.message(), output.hint().c_str(), json);
  return status == kConforms ? kDoesNot : status;
}
