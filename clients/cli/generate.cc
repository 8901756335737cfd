// `chimera generate` and `chimera chat`.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using client::Generation;
using client::Token;

void add_sampling_options(po::options_description& options) {
  auto add = options.add_options();
  add("max-tokens", po::value<int64_t>()->value_name("N"), "at most N tokens (256)");
  add("temperature", po::value<double>()->value_name("T"), "0 takes the likeliest token (1)");
  add("top-p", po::value<double>()->value_name("P"), "nucleus sampling (1 = off)");
  add("top-k", po::value<int64_t>()->value_name("K"), "the K likeliest tokens only (0 = off)");
  add("min-p", po::value<double>()->value_name("P"), "relative threshold (0 = off)");
  add("repetition-penalty", po::value<double>()->value_name("X"), "1 = off");
  add("seed", po::value<uint64_t>()->value_name("S"), "same seed, same text");
  add("stop", po::value<std::vector<std::string>>()->value_name("TEXT"),
      "end before this text (may be repeated)");
  add("ignore-eos", po::bool_switch(), "go on after the end-of-text token");
  add("deadline-ms", po::value<int64_t>()->value_name("MS"), "end after so long");
  add_module_options(options);
}

template <class T, class Out>
void take(const po::variables_map& options, const char* name, Out& out) {
  if (options.count(name) > 0) out = options[name].as<T>();
}

std::variant<wire::Generate, Error> request_of(const po::variables_map& options) {
  wire::Generate request;
  take<int64_t>(options, "max-tokens", request.max_tokens);
  take<double>(options, "temperature", request.temperature);
  take<double>(options, "top-p", request.top_p);
  take<int64_t>(options, "top-k", request.top_k);
  take<double>(options, "min-p", request.min_p);
  take<double>(options, "repetition-penalty", request.repetition_penalty);
  take<uint64_t>(options, "seed", request.seed);
  take<std::vector<std::string>>(options, "stop", request.stop);
  request.ignore_eos = options["ignore-eos"].as<bool>();
  take<int64_t>(options, "deadline-ms", request.deadline_ms);
  auto filter = module_filter(options);
  if (auto* error = std::get_if<Error>(&filter)) return *error;
  request.modules = std::move(std::get<wire::ModuleFilter>(filter));
  return request;
}

/// One line about the run on standard error, so that the text can be piped on.
void print_summary(const Output& out, const Generation& done) {
  if (!out.error_terminal()) return;
  const double seconds = done.decode_ms / 1000.0;
  const double rate = seconds > 0 ? static_cast<double>(done.completion_tokens) / seconds : 0.0;
  const std::string text = harmless(fmt::format("[{} tokens, {:.1f} per second, {}; epoch {}; {}]",
                                                done.completion_tokens, rate, done.finish_reason,
                                                done.provenance.epoch, shares(done.provenance)));
  std::fprintf(stderr, "%s\n", text.c_str());
}

Json token_json(const Token& token) {
  Json out = {
      {"event", "token"}, {"text", token.text}, {"token", token.id}, {"epoch", token.epoch}};
  if (token.logprob) out["logprob"] = *token.logprob;
  return out;
}

Outcome generate(const Invocation& run) {
  auto made = request_of(run.options);
  if (auto* error = std::get_if<Error>(&made)) return *error;
  auto request = std::move(std::get<wire::Generate>(made));
  request.logprobs = run.options["logprobs"].as<bool>();
  request.stream = !run.options["no-stream"].as<bool>();
  std::string prompt = run.arguments[0];
  if (prompt == "-") {
    auto text = read_whole("-", wire::kMaxMessageBytes);
    if (auto* error = std::get_if<Error>(&text)) return *error;
    prompt = std::move(std::get<std::string>(text));
  }
  request.prompt = std::move(prompt);

  const Output& out = run.out;
  const auto show = [&out](const Token& token) {
    out.json() ? out.object(token_json(token)) : out.stream(token.text);
  };
  const auto done = run.client.generate(request, show, interrupted);
  if (!done.ok()) {
    if (!out.json() && request.stream) out.line("");
    return done.error();
  }
  if (out.json()) {
    out.object(done->done);
  } else {
    if (!request.stream) out.stream(done->text);
    out.line("");
    print_summary(out, *done);
  }
  return interrupted() ? kInterruptedStatus : 0;
}

/// A conversation; kept as messages, and as a transcript for models without a chat template.
class Conversation {
 public:
  explicit Conversation(bool has_template) : has_template_(has_template) {}

  void ask(const std::string& text) { messages_.push_back({"user", text}); }
  void answered(const std::string& text) { messages_.push_back({"assistant", text}); }
  void take_back() { messages_.pop_back(); }
  void reset() { messages_.clear(); }

  /// The request for the next turn.
  wire::Generate request(wire::Generate options) const {
    std::string transcript;
    for (const auto& message : messages_) {
      transcript += (message.role == "user" ? "User: " : "Assistant: ") + message.content + "\n";
    }
    options.prompt = transcript + "Assistant:";
    options.stop.emplace_back("\nUser:");
    return options;
  }
  bool has_template() const { return has_template_; }
  const std::vector<wire::ChatMessage>& messages() const { return messages_; }

 private:
  bool has_template_;
  std::vector<wire::ChatMessage> messages_;
};

/// The words of the answer without the blanks around them.
std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \n\t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \n\t") - first + 1);
}

void answer_turn(const Invocation& run, Conversation& conversation, const wire::Generate& options) {
  const Output& out = run.out;
  const auto show = [&out](const Token& token) {
    if (!out.json()) out.stream(token.text);
  };
  const auto done = conversation.has_template()
                        ? run.client.chat({conversation.messages(), options}, show, interrupted)
                        : run.client.generate(conversation.request(options), show, interrupted);
  if (!done.ok()) {
    print_error(done.error());
    conversation.take_back();  // the question may be asked again
    return;
  }
  if (out.json()) {
    out.object({{"text", done->text}, {"done", done->done}});
  } else {
    out.line("");
    print_summary(out, *done);
  }
  conversation.answered(trimmed(done->text));
}

Outcome chat(const Invocation& run) {
  auto made = request_of(run.options);
  if (auto* error = std::get_if<Error>(&made)) return *error;
  const auto& options = std::get<wire::Generate>(made);
  const auto info = run.client.call(wire::Info{}, kAnswerWait);
  if (!info.ok()) return info.error();
  Conversation conversation(info->body.value("has_chat_template", false));
  if (run.out.error_terminal()) {
    std::fprintf(stderr, "%s",
                 conversation.has_template()
                     ? ""
                     : "This checkpoint has no chat template: the conversation goes "
                       "to it as plain text.\n");
    std::fprintf(stderr, "Ctrl-D ends, /reset starts anew.\n");
  }
  std::string line;
  while (!interrupted()) {
    if (run.out.error_terminal()) std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line == "/reset") conversation.reset();
    if (line.empty() || line == "/reset") continue;
    conversation.ask(line);
    answer_turn(run, conversation, options);
  }
  return interrupted() ? kInterruptedStatus : 0;
}

}  // namespace

void add_generation_commands(std::vector<Command>& commands) {
  commands.push_back({"generate", "PROMPT|- [options]", "stream text that follows the prompt", 1, 1,
                      [](po::options_description& options) {
                        add_sampling_options(options);
                        auto add = options.add_options();
                        add("no-stream", po::bool_switch(), "print the whole text at its end");
                        add("logprobs", po::bool_switch(), "with --json: log-probabilities");
                      },
                      generate});
  commands.push_back(
      {"chat", "[options]", "talk line by line (Ctrl-D ends)", 0, 0, add_sampling_options, chat});
}

}  // namespace chimera::cli
