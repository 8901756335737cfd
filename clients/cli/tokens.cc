// `chimera tokenize` and `chimera detokenize`: texts to token ids and back.
#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "base/json/writer.h"
#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

Outcome tokenize(const Invocation& run) {
  auto text = text_argument(run, 0);
  if (auto* error = std::get_if<Error>(&text)) return *error;
  wire::Tokenize call;
  call.text = std::move(std::get<std::string>(text));
  call.add_special = run.options["add-special"].as<bool>();
  // As `generate` reads a prompt, unless asked otherwise.
  call.match_special = run.options["match-special"].as<bool>();
  const auto event = run.client.call(call, kAnswerWait);
  if (!event.ok()) return event.error();
  if (run.out.json()) {
    run.out.object(event->body);
    return 0;
  }
  std::string ids;
  for (const Json& id : event->body["tokens"]) ids += (ids.empty() ? "" : " ") + write_json(id);
  run.out.line(ids);
  return 0;
}

/// Ids between blanks and commas, so that `tokenize` of people and the list of programs both do.
std::optional<Error> append_ids(const std::string& text, std::vector<int32_t>& ids) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  size_t at = text.find_first_not_of(kBetween);
  while (at != std::string::npos) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    int32_t id = 0;
    const auto parsed = std::from_chars(text.data() + at, text.data() + end, id);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + end || id < 0) {
      return bad_usage(fmt::format("ID: {} (expected a token id, 0 to {})",
                                   text.substr(at, std::min<size_t>(end - at, 64)),
                                   std::numeric_limits<int32_t>::max()),
                       "for instance: chimera detokenize 17 250");
    }
    ids.push_back(id);
    at = text.find_first_not_of(kBetween, end);
  }
  return std::nullopt;
}

Outcome detokenize(const Invocation& run) {
  wire::Detokenize call;
  call.skip_special = run.options["skip-special"].as<bool>();
  for (size_t i = 0; i < run.arguments.size(); ++i) {
    auto text = text_argument(run, i);
    if (auto* error = std::get_if<Error>(&text)) return *error;
    if (auto error = append_ids(std::get<std::string>(text), call.tokens)) return *error;
  }
  const auto event = run.client.call(call, kAnswerWait);
  if (!event.ok()) return event.error();
  if (run.out.json()) {
    run.out.object(event->body);
  } else {
    run.out.stream(event->body.value("text", ""));
    run.out.line("");
  }
  return 0;
}

}  // namespace

void add_token_commands(std::vector<Command>& commands) {
  commands.push_back({"tokenize", "TEXT|- [options]", "a text as token ids", 1, 1,
                      [](po::options_description& options) {
                        auto add = options.add_options();
                        add("add-special", po::bool_switch(),
                            "with the tokens that the tokenizer adds to texts");
                        add("match-special", po::bool_switch(),
                            "special tokens spelled in the text become those tokens");
                      },
                      tokenize});
  commands.push_back(
      {"detokenize", "ID...|- [options]", "token ids as text", 1, wire::kMaxPromptTokens,
       [](po::options_description& options) {
         options.add_options()("skip-special", po::bool_switch(), "without special tokens");
       },
       detokenize});
}

}  // namespace chimera::cli
