#include "check/runner.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace chimera::check {
namespace {

using Clock = std::chrono::steady_clock;

Board* new_board() {
  void* map =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return map == MAP_FAILED ? nullptr : new (map) Board{};
}

Context make_context(const Case& which, const Subject& subject, const RunOptions& options,
                     const std::string& work_dir, Board& board, int output_fd) {
  std::seed_seq seeds{static_cast<uint32_t>(options.seed),
                      static_cast<uint32_t>(options.seed >> 32),
                      static_cast<uint32_t>(which.number)};
  return {subject,
          options.level,
          which.number,
          options.seed,
          work_dir,
          board,
          output_fd,
          std::mt19937_64(seeds),
          {},
          0,
          which.limit_s * options.time_factor};
}

void post(Board& board, const Finding& finding) {
  board.verdict = static_cast<uint32_t>(finding.verdict);
  const size_t n = std::min(finding.text.size(), Board::kText - 1);
  std::memcpy(board.text, finding.text.data(), n);
  board.text[n] = '\0';
  __atomic_store_n(&board.done, 1u, __ATOMIC_RELEASE);
}

/// The child: one case, then gone, without destructors or exit handlers of the plugin.
[[noreturn]] void run_child(const Case& which, Context& context) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (const int null = open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0) {
    dup2(null, 0);
    close(null);
  }
  dup2(context.output_fd, 1);
  dup2(context.output_fd, 2);
  Finding finding;
  try {
    finding = which.run(context);
  } catch (const std::exception& e) {
    finding = fail("{}: ended by the exception {}.", context.board.phase, e.what());
  }
  post(context.board, finding);
  _exit(0);
}

/// Waits for the child, at most `limit`; its wait status, or nullopt after the limit.
std::optional<int> wait_for(pid_t child, std::chrono::duration<double> limit) {
  const auto end = Clock::now() + limit;
  auto pause = std::chrono::microseconds(100);
  for (;;) {
    int status = 0;
    const pid_t done = waitpid(child, &status, WNOHANG);
    if (done == child) return status;
    if (Clock::now() >= end) return std::nullopt;
    usleep(static_cast<useconds_t>(pause.count()));
    pause = std::min(pause * 2, std::chrono::microseconds(5000));
  }
}

/// The verdict of a child that ended without one.
Finding unfinished(const Board& board, std::optional<int> status, double limit_s) {
  const std::string phase = board.phase[0] == '\0' ? "before the first call" : board.phase;
  if (!status) return fail("{}: not back after {:.0f} s.", phase, limit_s);
  if (WIFSIGNALED(*status)) {
    const int number = WTERMSIG(*status);
    return fail("{}: ended by SIG{} ({}).", phase, sigabbrev_np(number), strsignal(number));
  }
  return fail("{}: ended the process with exit status {}.", phase, WEXITSTATUS(*status));
}

std::string printed(int fd) {
  std::string out(4096, '\0');
  const ssize_t n = pread(fd, out.data(), out.size(), 0);
  out.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return out;
}

Finding run_forked(const Case& which, Context& context, double limit_s) {
  const pid_t child = fork();
  if (child < 0) return fail("no process for the case: {}.", std::strerror(errno));
  if (child == 0) run_child(which, context);
  const auto status = wait_for(child, std::chrono::duration<double>(limit_s));
  kill(-child, SIGKILL);  // what the plugin started belongs to the child's process group
  if (!status) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  if (__atomic_load_n(&context.board.done, __ATOMIC_ACQUIRE) == 0) {
    return unfinished(context.board, status, limit_s);
  }
  context.board.text[Board::kText - 1] = '\0';
  const uint32_t verdict = std::min(context.board.verdict, 3u);
  return {static_cast<Verdict>(verdict), context.board.text};
}

}  // namespace

CaseResult run_case(const Case& which, const Subject& subject, const RunOptions& options,
                    const std::string& work_dir) {
  CaseResult result;
  result.which = &which;
  if (options.level < which.level) {
    result.finding = skip("tried from level {} on.", level_name(which.level));
    return result;
  }
  Board* board = new_board();
  const int output = memfd_create("chimera-plugin-check", MFD_CLOEXEC);
  if (board == nullptr || output < 0) {
    result.finding = fail("no memory for the case: {}.", std::strerror(errno));
    return result;
  }
  const auto start = Clock::now();
  const std::string dir = work_dir + "/" + std::to_string(which.number);
  std::error_code error;
  std::filesystem::create_directory(dir, error);
  Context context = make_context(which, subject, options, dir, *board, output);
  result.finding =
      options.in_process ? which.run(context) : run_forked(which, context, context.limit_s);
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result.output = printed(output);
  close(output);
  munmap(board, sizeof(Board));
  std::filesystem::remove_all(dir, error);
  return result;
}

}  // namespace chimera::check
