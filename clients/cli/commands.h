// The commands of `chimera`. Each takes its arguments as parsed and returns the exit status;
// what went wrong comes back as an Error, printed by main.
//
// Thread safety: by the main thread.
#pragma once

#include <boost/program_options.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "chimera_client/client.h"
#include "terminal/output.h"

namespace chimera::cli {

/// What went wrong, as the daemon or this program says it.
struct Error : wire::Error {
  Error() = default;
  Error(wire::Error from) : wire::Error(std::move(from)) {}
  Error(std::string with_code, std::string what, std::string next)
      : wire::Error{std::move(with_code), std::move(what), std::move(next)} {}

  bool usage = false;  // the command itself was wrong; nothing was sent
};
/// An Error about arguments and options.
Error bad_usage(std::string message, std::string hint);

struct Invocation {
  client::Client& client;
  const Output& out;
  std::vector<std::string> arguments;  // positional, after the command's name
  const boost::program_options::variables_map& options;
};

/// Exit status, or what to tell on standard error.
using Outcome = std::variant<int, Error>;

struct Command {
  std::string name;
  std::string usage;    // after the name, e.g. "PROMPT [options]"
  std::string summary;  // one line
  size_t min_arguments = 0, max_arguments = 0;
  std::function<void(boost::program_options::options_description&)> add_options;  // may be empty
  std::function<Outcome(const Invocation&)> run;
};

/// generate (generate.cc).
void add_generation_commands(std::vector<Command>& commands);
/// chat (chat.cc).
void add_chat_command(std::vector<Command>& commands);
/// tokenize, detokenize (tokens.cc).
void add_token_commands(std::vector<Command>& commands);
/// score (score.cc).
void add_score_command(std::vector<Command>& commands);
/// embed (embed.cc).
void add_embed_command(std::vector<Command>& commands);
/// modules, epochs (listing.cc).
void add_listing_commands(std::vector<Command>& commands);
/// load, unload, revoke, enable, disable, bias, plan, apply, rollback (control.cc).
void add_control_commands(std::vector<Command>& commands);
/// blend (blend.cc).
void add_blend_command(std::vector<Command>& commands);
/// canary (canary.cc).
void add_canary_command(std::vector<Command>& commands);
/// jobs (job.cc).
void add_job_commands(std::vector<Command>& commands);
/// routing, requests, cancel, stats, health, info, drain, shutdown (status.cc).
void add_status_commands(std::vector<Command>& commands);
/// key, audit (trust.cc).
void add_trust_commands(std::vector<Command>& commands);

/// "90s", "2h", "7d" ago; "2026-11-27", "2026-11-27T10:00:00Z": the option --since, seconds of UTC.
std::variant<int64_t, Error> since_of(const boost::program_options::variables_map& options);
/// receipt (receipt.cc).
void add_receipt_command(std::vector<Command>& commands);
/// Refuses a file that is there already, before what is to be written into it is asked for.
std::optional<Error> check_new(const std::string& file);
/// Writes a statement that the daemon signed to a file, which `chimera receipt verify` takes.
std::optional<Error> save_statement(const std::string& file, const std::string& text);
/// usage (usage.cc).
void add_usage_command(std::vector<Command>& commands);
/// top (top.cc).
void add_top_command(std::vector<Command>& commands);

/// Set by Ctrl-C; a second one ends the program.
bool interrupted();
/// Forgets a Ctrl-C that was dealt with; returns whether there was one.
bool clear_interrupt();
/// For a command that changes the daemon for a while: from now on SIGTERM and SIGHUP interrupt like
/// Ctrl-C, however often that comes, and a closed pipe shows as lost output.
void put_back_at_the_end();
/// Exit statuses (print_help lists them). Busy and gone daemons may be asked again: EX_TEMPFAIL of
/// sysexits.h, which nothing else gives.
inline constexpr int kFailedStatus = 1, kUsageStatus = 2, kTryAgainStatus = 75;
/// After Ctrl-C: 128 + SIGINT.
inline constexpr int kInterruptedStatus = 130;
int exit_status(const Error& error);

/// A whole number from 0 as the value of an option: boost's own reading takes "-1" for 2^64 - 1.
struct Whole {
  uint64_t value = 0;
};
void validate(boost::any& out, const std::vector<std::string>& values, Whole*, int);

/// A finite number as the value of an option: "nan" and "inf" are numbers to boost, and none to
/// JSON.
struct Real {
  double value = 0.0;
};
void validate(boost::any& out, const std::vector<std::string>& values, Real*, int);
/// The finite number that all of `text` is.
std::optional<double> finite_number(std::string_view text);
/// "NAME=NUMBER", at its last '='; nothing when either is missing.
std::optional<std::pair<std::string, double>> named_number(std::string_view text);

/// How long calls that only look may take.
inline constexpr client::Milliseconds kAnswerWait{10'000};

/// Refuses text that is not UTF-8, which the wire could not carry. `what` names it in the message.
std::optional<Error> check_text(std::string_view what, std::string_view text);
/// "a,b" -> {"a","b"}; empty text gives an empty list.
std::vector<std::string> split_names(const std::string& text);
/// --modules, --no-modules, --exclude and --bias of generate, score and embed.
void add_module_options(boost::program_options::options_description& options);
std::variant<wire::ModuleFilter, Error> module_filter(
    const boost::program_options::variables_map& options);
/// A whole file, or standard input for "-".
std::variant<std::string, Error> read_whole(const std::string& file, size_t max_bytes);
/// The argument, or standard input for "-", which must be UTF-8.
std::variant<std::string, Error> text_argument(const Invocation& run, size_t index);
/// "legal 31.0 %, backbone 69.0 %".
std::string shares(const client::Provenance& provenance);

}  // namespace chimera::cli
