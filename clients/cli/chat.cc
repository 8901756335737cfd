// `chimera chat`: a conversation, line by line.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "commands.h"
#include "terminal/line_reader.h"
#include "sampling.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using client::Generation;
using client::Token;

/// The words of the answer without the blanks around them.
std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \n\t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \n\t") - first + 1);
}

/// The messages so far, and how they become a request: through the checkpoint's chat template, or
/// (--template plain) as a transcript that any model can continue.
class Conversation {
 public:
  Conversation(bool plain, const std::string& system) : plain_(plain), system_(system) { clear(); }

  void clear() {
    messages_.clear();
    if (!system_.empty()) messages_.push_back({"system", system_});
  }
  void ask(const std::string& text) { messages_.push_back({"user", text}); }
  void answered(const std::string& text) {
    messages_.push_back({"assistant", plain_ ? trimmed(text) : text});
  }
  /// The last question may be asked again.
  void take_back() { messages_.pop_back(); }

  wire::Call request(wire::Generate options) const {
    if (!plain_) return wire::Chat{{.messages_json = wire::messages_json(messages_)}, options};
    std::string transcript;
    for (const auto& [role, content] : messages_) {
      const char* name = role == "user" ? "User: " : (role == "system" ? "" : "Assistant: ");
      transcript += name + content + "\n";
    }
    options.prompt = transcript + "Assistant:";
    options.stop.emplace_back("\nUser:");
    return options;
  }

 private:
  bool plain_;
  std::string system_;
  std::vector<wire::ChatMessage> messages_;
};

/// Numbers for /stats.
struct Totals {
  int64_t answers = 0, tokens = 0;
  double decode_ms = 0;
  std::optional<Generation> last;
};

class Session {
 public:
  Session(const Invocation& run, wire::Generate options, Conversation conversation)
      : run_(run),
        options_(std::move(options)),
        own_filter_(options_.modules),
        conversation_(std::move(conversation)) {}

  Outcome talk() {
    LineReader reader("> ");
    if (reader.interactive())
      note("/help lists the commands, Ctrl-C ends an answer, Ctrl-D leaves.");
    while (!left_ && !run_.out.lost()) {
      const auto line = reader.next();
      if (!line) break;
      if (line->empty()) continue;
      if ((*line)[0] == '/' && !line->starts_with("//")) {
        command(*line);
      } else {
        turn(line->starts_with("//") ? line->substr(1) : *line);
      }
    }
    return failed_ && !reader.interactive() ? kFailedStatus : 0;
  }

 private:
  struct Command {
    std::string_view name, arguments, summary;
    void (Session::*run)(const std::string& argument);
  };
  static constexpr size_t kCommands = 5;
  static const std::array<Command, kCommands>& commands();

  static void note(std::string_view text) { std::fprintf(stderr, "%s\n", harmless(text).c_str()); }

  void problem(const Error& error) {
    failed_ = true;
    print_error(error, run_.out.json());
  }

  void command(const std::string& line) {
    const size_t blank = std::min(line.find(' '), line.size());
    const std::string_view name = std::string_view(line).substr(1, blank - 1);
    for (const Command& one : commands()) {
      if (one.name == name) return (this->*one.run)(trimmed(line.substr(blank)));
    }
    problem({"invalid_argument", fmt::format("/{}: no such command (expected one of /help)", name),
             "a line that begins with // is sent with one /"});
  }

  void help(const std::string&) {
    for (const Command& one : commands()) {
      note(fmt::format("  {:<22}{}", fmt::format("/{} {}", one.name, one.arguments), one.summary));
    }
    note("  //text                sends /text");
  }

  void clear(const std::string&) { conversation_.clear(); }
  void quit(const std::string&) { left_ = true; }

  /// What the daemon has loaded; nullopt after a problem was told.
  std::optional<Json> loaded() {
    const auto info = run_.client.call(wire::Info{}, kAnswerWait);
    if (info.ok()) return info->body["modules"];
    problem(info.error());
    return std::nullopt;
  }

  /// Answers with these modules only, if all of them can be used.
  void choose(const std::vector<std::string>& names) {
    const auto modules = loaded();
    if (!modules) return;
    for (const std::string& name : names) {
      const auto found = std::find_if(modules->begin(), modules->end(), [&](const Json& module) {
        return module.value("name", "") == name;
      });
      if (found != modules->end() && found->value("enabled", true)) continue;
      return problem({"not_found",
                      fmt::format("/modules: {} is {} (expected a module in use)", name,
                                  found == modules->end() ? "not loaded" : "disabled"),
                      "/modules lists them; the choice is as it was"});
    }
    options_.modules.only = names;
  }

  /// Lists what is loaded, or narrows the next answers to some modules.
  void modules(const std::string& names) {
    if (names == "all") {
      options_.modules = own_filter_;
      return;
    }
    if (!names.empty()) return choose(split_names(names));
    const auto modules = loaded();
    if (!modules) return;
    const auto& only = options_.modules.only;
    std::vector<std::vector<std::string>> rows;
    for (const Json& module : *modules) {
      const std::string name = module.value("name", "");
      const bool chosen = !only || std::find(only->begin(), only->end(), name) != only->end();
      rows.push_back(
          {name, module.value("version", ""),
           !module.value("enabled", true) ? "disabled" : (chosen ? "" : "left out here")});
    }
    run_.out.table({"module", "version", ""}, rows);
  }

  void stats(const std::string&) {
    if (!totals_.last) return note("no answer yet");
    const Generation& last = *totals_.last;
    const auto rate = [](int64_t tokens, double ms) {
      return fmt::format("{:.1f} per second",
                         ms > 0 ? static_cast<double>(tokens) * 1000.0 / ms : 0.0);
    };
    run_.out.pairs(
        {{"answers", std::to_string(totals_.answers)},
         {"tokens", fmt::format("{}, {}", totals_.tokens, rate(totals_.tokens, totals_.decode_ms))},
         {"last prompt",
          fmt::format("{} tokens, {} of them cached", last.prompt_tokens, last.cached_tokens)},
         {"last answer",
          fmt::format("{} tokens, {}, {}", last.completion_tokens,
                      rate(last.completion_tokens, last.decode_ms), last.finish_reason)},
         {"shares", shares(last.provenance)},
         {"epoch", std::to_string(last.provenance.epoch)}});
  }

  void turn(const std::string& question) {
    const Output& out = run_.out;
    if (auto error = check_text("question", question)) return problem(*error);
    const auto show = [&out](const Token& token) {
      if (!out.json()) out.stream(token.text);
    };
    conversation_.ask(question);
    const auto stop = [&out] { return interrupted() || out.lost(); };
    const wire::Call request = conversation_.request(options_);
    const auto* chat = std::get_if<wire::Chat>(&request);
    const auto done = chat != nullptr
                          ? run_.client.chat(*chat, show, stop)
                          : run_.client.generate(std::get<wire::Generate>(request), show, stop);
    clear_interrupt();
    if (!done.ok()) {
      conversation_.take_back();
      return problem(done.error());
    }
    if (out.json()) {
      out.object({{"text", done->text}, {"done", done->done}});
    } else {
      out.line("");
      print_summary(out, *done, run_.options.count("max-tokens") > 0);
    }
    // What came of a cancelled answer stays; a question without any answer does not.
    done->text.empty() ? conversation_.take_back() : conversation_.answered(done->text);
    ++totals_.answers;
    totals_.tokens += done->completion_tokens;
    totals_.decode_ms += done->decode_ms;
    totals_.last = *done;
  }

  const Invocation& run_;
  wire::Generate options_;
  const wire::ModuleFilter own_filter_;  // of the command line
  Conversation conversation_;
  Totals totals_;
  bool left_ = false, failed_ = false;
};

const std::array<Session::Command, Session::kCommands>& Session::commands() {
  static constexpr std::array<Command, kCommands> table = {{
      {"modules", "[A,B|all]", "what is loaded; answer with these only", &Session::modules},
      {"stats", "", "tokens, speed and shares", &Session::stats},
      {"clear", "", "begin a new conversation", &Session::clear},
      {"help", "", "this list", &Session::help},
      {"quit", "", "leave, as Ctrl-D does", &Session::quit},
  }};
  return table;
}

/// Whether to send transcripts; an error when the daemon has no template and none was asked for.
std::variant<bool, Error> plain_chosen(const Invocation& run) {
  const auto chosen = run.options["template"].as<std::string>();
  if (chosen == "plain") return true;
  if (chosen != "model") {
    return bad_usage("--template: " + chosen + " (expected model or plain)", "");
  }
  const auto info = run.client.call(wire::Info{}, kAnswerWait);
  if (!info.ok()) return info.error();
  if (info->body.value("has_chat_template", false)) return false;
  return Error{"failed_precondition", "chat: the checkpoint has no chat template (expected one)",
               "chimera chat --template plain sends the conversation as plain text"};
}

Outcome chat(const Invocation& run) {
  auto options = sampling_request(run.options);
  if (auto* error = std::get_if<Error>(&options)) return *error;
  const auto plain = plain_chosen(run);
  if (const auto* error = std::get_if<Error>(&plain)) return *error;
  const std::string system =
      run.options.count("system") > 0 ? run.options["system"].as<std::string>() : std::string();
  Session session(run, std::move(std::get<wire::Generate>(options)),
                  Conversation(std::get<bool>(plain), system));
  return session.talk();
}

void add_chat_options(po::options_description& options) {
  auto add = options.add_options();
  add("template", po::value<std::string>()->default_value("model")->value_name("WHICH"),
      "model: the checkpoint's chat template; plain: a transcript, for any model");
  add("system", po::value<std::string>()->value_name("TEXT"), "the system message");
  add_sampling_options(options);
}

}  // namespace

void add_chat_command(std::vector<Command>& commands) {
  commands.push_back(
      {"chat", "[options]", "talk line by line (Ctrl-D ends)", 0, 0, add_chat_options, chat});
}

}  // namespace chimera::cli
