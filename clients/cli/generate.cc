// `chimera generate`, and the options it shares with `chimera chat`.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/json/reader.h"
#include "commands.h"
#include "sampling.h"
#include "terminal/share_view.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using client::Generation;
using client::Token;

template <class T, class Out>
void take(const po::variables_map& options, const char* name, Out& out) {
  if (options.count(name) > 0) out = options[name].as<T>();
}

template <class Out>
void take_real(const po::variables_map& options, const char* name, Out& out) {
  if (options.count(name) > 0) out = options[name].as<Real>().value;
}

/// What the daemon would refuse about the options, said of the options and before it is asked.
std::optional<Error> check_ranges(const wire::Generate& request) {
  wire::Generate sample = request;
  sample.prompt = "";
  std::string id;
  const auto read =
      wire::decode_request(wire::encode_request({"1", sample}), wire::Endpoint::kServe, &id);
  const auto* refused = std::get_if<wire::Error>(&read);
  if (refused == nullptr) return std::nullopt;
  std::string message = refused->message;
  if (constexpr std::string_view kCall = "generate."; message.starts_with(kCall)) {
    const auto begin = message.begin() + kCall.size();
    std::replace(begin, std::find(begin, message.end(), ':'), '_', '-');
    message = "--" + message.substr(kCall.size());
  }
  return bad_usage(std::move(message), "see: chimera generate --help");
}

Json token_json(const Token& token) {
  Json out = {
      {"event", "token"}, {"text", token.text}, {"token", token.id}, {"epoch", token.epoch}};
  if (token.logprob) out["logprob"] = *token.logprob;
  if (!token.shares.empty()) out["shares"] = token.shares;
  if (token.top.empty()) return out;
  Json top = Json::array();
  for (const client::TokenChoice& choice : token.top) {
    top.push_back({{"token", choice.id}, {"text", choice.text}, {"logprob", choice.logprob}});
  }
  out["top_logprobs"] = std::move(top);
  return out;
}

/// --logit-bias ID=VALUE, as often as it stands there.
std::optional<Error> take_biases(const po::variables_map& options, wire::Generate& request) {
  if (options.count("logit-bias") == 0) return std::nullopt;
  for (const auto& item : options["logit-bias"].as<std::vector<std::string>>()) {
    const size_t equals = item.find('=');
    const auto id = finite_number(std::string_view(item).substr(0, equals));
    const auto value =
        equals == std::string::npos ? std::nullopt : finite_number(item.substr(equals + 1));
    if (!id || !value || *id < 0 || *id > std::numeric_limits<int32_t>::max() ||
        *id != std::floor(*id)) {
      return bad_usage("--logit-bias: " + item + " (expected ID=NUMBER)",
                       "for instance --logit-bias 42=-100; ids are those of chimera tokenize");
    }
    request.logit_bias[static_cast<int32_t>(*id)] = *value;
  }
  return std::nullopt;
}

/// --json-object, --json-schema or --regex.
std::optional<Error> take_constraint(const po::variables_map& options, wire::Generate& request) {
  using Kind = wire::Constraint::Kind;
  const bool object = options["json-object"].as<bool>();
  const size_t given = options.count("json-schema") + options.count("regex") + (object ? 1 : 0);
  if (given > 1) {
    return bad_usage("--json-object, --json-schema and --regex: found together (expected one)",
                     "see: chimera generate --help");
  }
  if (object) request.constraint = {Kind::kJsonObject, ""};
  if (options.count("regex") > 0) {
    request.constraint = {Kind::kRegex, options["regex"].as<std::string>()};
  }
  if (options.count("json-schema") == 0) return std::nullopt;
  const std::string file = options["json-schema"].as<std::string>();
  auto text = read_whole(file, wire::kMaxMessageBytes);
  if (auto* error = std::get_if<Error>(&text)) return std::move(*error);
  const Result<Json> schema = parse_json(std::get<std::string>(text));
  if (!schema.ok()) {
    Error error = bad_usage(file + ": " + schema.status().message(), "expected a JSON Schema");
    error.usage = false;  // it is the file that is wrong
    return error;
  }
  request.constraint = {Kind::kJsonSchema, std::get<std::string>(std::move(text))};
  return std::nullopt;
}

Outcome generate(const Invocation& run) {
  auto made = sampling_request(run.options);
  if (auto* error = std::get_if<Error>(&made)) return *error;
  auto request = std::move(std::get<wire::Generate>(made));
  take<int64_t>(run.options, "top-logprobs", request.top_logprobs);
  if (auto error = check_ranges(request)) return std::move(*error);
  request.logprobs = run.options["logprobs"].as<bool>() || request.top_logprobs > 0;
  request.stream = !run.options["no-stream"].as<bool>();
  const Output& out = run.out;
  if (request.logprobs && !out.json()) {
    return bad_usage("--logprobs and --top-logprobs: found without --json (expected both)",
                     "chimera --json generate … prints them");
  }
  request.shares = run.options["shares"].as<bool>();
  if (request.shares && !request.stream) {
    return bad_usage("--shares and --no-stream: found together (expected one)",
                     "shares come with each token of a stream");
  }
  request.receipt = run.options.count("receipt") > 0;
  if (request.receipt) {
    if (auto error = check_new(run.options["receipt"].as<std::string>())) return std::move(*error);
  }
  auto prompt = text_argument(run, 0);
  if (auto* error = std::get_if<Error>(&prompt)) return *error;
  request.prompt = std::move(std::get<std::string>(prompt));

  bool shown = false;
  ShareView view(out);
  const auto show = [&](const Token& token) {
    shown = shown || !token.text.empty();
    if (out.json()) {
      out.object(token_json(token));
    } else if (request.shares) {
      view.show(token);
    } else {
      out.stream(token.text);
    }
  };
  const auto done =
      run.client.generate(request, show, [&out] { return interrupted() || out.lost(); });
  if (!done.ok()) {
    if (!out.json() && shown) out.line("");  // the error begins a line of its own
    return done.error();
  }
  if (request.receipt) {
    const auto& file = run.options["receipt"].as<std::string>();
    if (auto error = save_statement(file, done->receipt)) return std::move(*error);
  }
  if (out.json()) {
    out.object(done->done);
  } else {
    if (!request.stream) out.stream(done->text);
    out.line("");
    if (request.shares) view.legend();
    print_summary(out, *done, run.options.count("max-tokens") > 0);
  }
  return interrupted() ? kInterruptedStatus : 0;
}

}  // namespace

void add_sampling_options(po::options_description& options) {
  auto add = options.add_options();
  add("max-tokens", po::value<int64_t>()->value_name("N"), "at most N tokens (256)");
  add("temperature", po::value<Real>()->value_name("T"), "0 takes the likeliest token (1)");
  add("top-p", po::value<Real>()->value_name("P"), "nucleus sampling (1 = off)");
  add("top-k", po::value<int64_t>()->value_name("K"), "the K likeliest tokens only (0 = off)");
  add("min-p", po::value<Real>()->value_name("P"), "relative threshold (0 = off)");
  add("repetition-penalty", po::value<Real>()->value_name("X"), "1 = off");
  add("frequency-penalty", po::value<Real>()->value_name("X"),
      "against tokens, for every time they came (0 = off)");
  add("presence-penalty", po::value<Real>()->value_name("X"), "against tokens that came (0 = off)");
  add("logit-bias", po::value<std::vector<std::string>>()->value_name("ID=X"),
      "for or against a token, -100 to 100 (may be repeated)");
  add("seed", po::value<Whole>()->value_name("S"), "same seed, same text");
  add("stop", po::value<std::vector<std::string>>()->value_name("TEXT"),
      "end before this text (may be repeated)");
  add("json-object", po::bool_switch(), "the answer is a JSON object");
  add("json-schema", po::value<std::string>()->value_name("FILE"),
      "the answer is JSON that this schema describes");
  add("regex", po::value<std::string>()->value_name("EXPR"), "the answer fits this as a whole");
  add("ignore-eos", po::bool_switch(), "go on after the end-of-text token");
  add("deadline-ms", po::value<int64_t>()->value_name("MS"), "end after so long");
  add_module_options(options);
}

std::variant<wire::Generate, Error> sampling_request(const po::variables_map& options) {
  wire::Generate request;
  take<int64_t>(options, "max-tokens", request.max_tokens);
  take_real(options, "temperature", request.temperature);
  take_real(options, "top-p", request.top_p);
  take<int64_t>(options, "top-k", request.top_k);
  take_real(options, "min-p", request.min_p);
  take_real(options, "repetition-penalty", request.repetition_penalty);
  take_real(options, "frequency-penalty", request.frequency_penalty);
  take_real(options, "presence-penalty", request.presence_penalty);
  if (auto error = take_biases(options, request)) return std::move(*error);
  if (auto error = take_constraint(options, request)) return std::move(*error);
  if (options.count("seed") > 0) request.seed = options["seed"].as<Whole>().value;
  take<std::vector<std::string>>(options, "stop", request.stop);
  request.ignore_eos = options["ignore-eos"].as<bool>();
  take<int64_t>(options, "deadline-ms", request.deadline_ms);
  auto filter = module_filter(options);
  if (auto* error = std::get_if<Error>(&filter)) return *error;
  request.modules = std::move(std::get<wire::ModuleFilter>(filter));
  if (auto error = check_ranges(request)) return std::move(*error);
  return request;
}

void print_summary(const Output& out, const Generation& done, bool limit_given) {
  // An answer that ends in the middle looks as if that were all. Who set the limit knows.
  const bool cut = done.finish_reason == "length";
  if (!out.error_terminal()) {
    if (!cut || limit_given) return;
    std::fprintf(stderr, "chimera: stopped at the limit of %lld tokens; --max-tokens allows more\n",
                 static_cast<long long>(done.completion_tokens));
    return;
  }
  const double seconds = done.decode_ms / 1000.0;
  const double rate = seconds > 0 ? static_cast<double>(done.completion_tokens) / seconds : 0.0;
  const std::string text = harmless(
      fmt::format("[{} tokens, {:.1f} per second, {}; epoch {}; {}]", done.completion_tokens, rate,
                  cut ? "stopped at the limit (--max-tokens)" : done.finish_reason,
                  done.provenance.epoch, shares(done.provenance)));
  std::fprintf(stderr, "%s\n", text.c_str());
}

void add_generation_commands(std::vector<Command>& commands) {
  commands.push_back({"generate", "PROMPT|- [options]", "stream text that follows the prompt", 1, 1,
                      [](po::options_description& options) {
                        add_sampling_options(options);
                        auto add = options.add_options();
                        add("no-stream", po::bool_switch(), "print the whole text at its end");
                        add("shares", po::bool_switch(),
                            "show which module answered each token: by colour, or by marks");
                        add("receipt", po::value<std::string>()->value_name("FILE"),
                            "write what the daemon signs about the answer to a new file");
                        add("logprobs", po::bool_switch(), "with --json: log-probabilities");
                        add("top-logprobs", po::value<int64_t>()->value_name("N"),
                            "with --json: the N likeliest tokens of each place as well");
                      },
                      generate});
}

}  // namespace chimera::cli
