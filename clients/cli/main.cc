// `chimera`: the command line of the Chimera daemon.
#include <unistd.h>

#include <csignal>

#include "dispatch.h"

namespace chimera::cli {
namespace {

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
