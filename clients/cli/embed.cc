// `chimera embed`: texts as vectors, and how alike they are.
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using client::EmbedResult;

constexpr size_t kMaxTexts = 1024;
constexpr size_t kShownValues = 6;
constexpr size_t kShownText = 30;  // characters

std::variant<wire::Embed, Error> embed_call(const po::variables_map& options) {
  wire::Embed call;
  const auto pooling = options["pooling"].as<std::string>();
  if (pooling != "mean" && pooling != "last") {
    return bad_usage(fmt::format("--pooling: {} (expected mean or last)", pooling),
                     "see: chimera embed --help");
  }
  call.last = pooling == "last";
  call.normalize = !options["no-normalize"].as<bool>();
  auto filter = module_filter(options);
  if (auto* error = std::get_if<Error>(&filter)) return std::move(*error);
  call.modules = std::get<wire::ModuleFilter>(std::move(filter));
  return call;
}

double dot_product(const std::vector<float>& x, const std::vector<float>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

/// Cosine of the angle between them; 0 when one has no direction.
double likeness(const std::vector<float>& x, const std::vector<float>& y) {
  const double lengths = std::sqrt(dot_product(x, x) * dot_product(y, y));
  return lengths > 0.0 ? dot_product(x, y) / lengths : 0.0;
}

/// One line of it.
std::string first_words(const std::string& text) {
  std::string out;
  for (const char c : harmless(text)) {
    const bool starts = (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    if (starts && width(out) == kShownText) return out + "…";
    out += c == '\n' || c == '\t' ? ' ' : c;
  }
  return out;
}

void show_one(const Output& out, const EmbedResult& result) {
  std::string values;
  for (size_t i = 0; i < std::min(kShownValues, result.embedding.size()); ++i) {
    values += fmt::format("{:.4f} ", result.embedding[i]);
  }
  out.pairs({{"dimensions", std::to_string(result.embedding.size())},
             {"tokens", std::to_string(result.prompt_tokens)},
             {"values", values + "… (all with --json)"},
             {"length",
              fmt::format("{:.4f}", std::sqrt(dot_product(result.embedding, result.embedding)))},
             {"epoch", std::to_string(result.provenance.epoch)},
             {"modules", shares(result.provenance)}});
}

/// Every text beside every other: the cosine between them.
void show_all(const Output& out, const std::vector<std::string>& texts,
              const std::vector<EmbedResult>& results) {
  std::vector<std::string> header = {"", "text", "tokens"};
  std::vector<std::vector<std::string>> rows;
  std::vector<size_t> right = {0, 2};
  for (size_t i = 0; i < results.size(); ++i) {
    right.push_back(header.size());
    header.push_back(std::to_string(i + 1));
    std::vector<std::string> row = {std::to_string(i + 1), first_words(texts[i]),
                                    std::to_string(results[i].prompt_tokens)};
    for (const EmbedResult& other : results) {
      row.push_back(fmt::format("{:.3f}", likeness(results[i].embedding, other.embedding)));
    }
    rows.push_back(std::move(row));
  }
  out.table(header, rows, right);
}

Outcome embed(const Invocation& run) {
  auto call = embed_call(run.options);
  if (auto* error = std::get_if<Error>(&call)) return *error;
  auto& asked = std::get<wire::Embed>(call);
  std::vector<std::string> texts;
  std::vector<EmbedResult> results;
  for (size_t i = 0; i < run.arguments.size(); ++i) {
    auto text = text_argument(run, i);
    if (auto* error = std::get_if<Error>(&text)) return *error;
    texts.push_back(std::get<std::string>(std::move(text)));
    asked.input = texts.back();
    auto result = run.client.embed(asked, interrupted);
    if (interrupted()) return kInterruptedStatus;
    if (!result.ok()) return result.error();
    if (result->finish_reason != "embedded") {
      return Error{"failed_precondition",
                   fmt::format("text {}: ended as {} (expected its embedding)", i + 1,
                               result->finish_reason),
                   "ask again"};
    }
    if (run.out.json()) run.out.object(result->done);
    results.push_back(std::move(*result));
  }
  if (run.out.json()) return 0;
  results.size() == 1 ? show_one(run.out, results[0]) : show_all(run.out, texts, results);
  return 0;
}

}  // namespace

void add_embed_command(std::vector<Command>& commands) {
  commands.push_back(
      {"embed", "TEXT|-... [options]", "texts as vectors, and how alike they are", 1, kMaxTexts,
       [](po::options_description& options) {
         auto add = options.add_options();
         add("pooling", po::value<std::string>()->default_value("mean")->value_name("mean|last"),
             "mean over all tokens, or last: that of the last one");
         add("no-normalize", po::bool_switch(), "leave the vectors at the length they have");
         add_module_options(options);
       },
       embed});
}

}  // namespace chimera::cli
