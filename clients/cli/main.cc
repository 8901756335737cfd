// `chimera`: the command line of the Chimera daemon.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string_view>

#include "base/standard_output.h"
#include "dispatch.h"

namespace chimera::cli {
namespace {

volatile std::sig_atomic_t ctrl_c_seen = 0;
volatile std::sig_atomic_t putting_back = 0;

void on_interrupt(int) {
  // The second Ctrl-C ends the program whatever it is waiting for.
  if (ctrl_c_seen != 0 && putting_back == 0) _exit(kInterruptedStatus);
  ctrl_c_seen = 1;
}

void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART, so that waiting calls notice
  sigaction(SIGINT, &action, nullptr);
}

/// Before the options are understood: an error about them is told in the form that was asked for.
bool json_wanted(int argc, char** argv) {
  return std::any_of(argv, argv + argc,
                     [](const char* word) { return std::string_view(word) == "--json"; });
}

}  // namespace

bool interrupted() { return ctrl_c_seen != 0; }

bool clear_interrupt() {
  const bool seen = interrupted();
  ctrl_c_seen = 0;
  return seen;
}

void put_back_at_the_end() {
  putting_back = 1;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  for (const int signal : {SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
  action.sa_handler = SIG_IGN;  // what cannot be printed shows as lost output
  sigaction(SIGPIPE, &action, nullptr);
}

}  // namespace chimera::cli

int main(int argc, char** argv) {
  using namespace chimera::cli;
  chimera::guard_standard_streams();
  watch_interrupts();
  const bool json = json_wanted(argc, argv);
  Outcome outcome = kFailedStatus;
  try {
    outcome = dispatch(argc, argv);
  } catch (const boost::program_options::error& problem) {
    outcome = bad_usage(std::string("options: ") + problem.what(), "see: chimera --help");
  } catch (const std::exception& problem) {
    outcome = Error{"internal", problem.what(), ""};
  }
  int status = kFailedStatus;
  if (const auto* error = std::get_if<Error>(&outcome)) {
    print_error(*error, json);
    status = interrupted() ? kInterruptedStatus : exit_status(*error);
  } else {
    status = std::get<int>(outcome);
  }
  const chimera::Status output = chimera::flush_standard_output();
  if (output.ok()) return status;
  print_error({std::string(code_name(output.code())), output.message(), output.hint()}, json);
  return status == 0 ? kFailedStatus : status;
}
