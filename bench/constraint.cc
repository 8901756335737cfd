// constraint: CPU microseconds per token that a constraint adds, at a vocabulary that the user
// gives.
//
// Answers are random walks: of what may come next each token is as likely, which is harder on the
// masks than a model, whose answers look alike. "first" is the first answer under a constraint that
// was just compiled, when every state is new; "later" are those that follow with other seeds, as
// under load. Reference: one pass over a row of logits as sampling makes it, softmax and draw.
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench.h"
#include "options.h"
#include "stats.h"
#include "text/constraint/constraint.h"

namespace chimera::bench {
namespace {

using namespace constraint;

struct Options {
  std::string tokenizer;
  size_t answers = 20;
  size_t tokens = 200;
};

struct Case {
  const char* name;
  Spec spec;
};

const Case kCases[] = {
    {"any JSON object", {Spec::Kind::kJsonObject}},
    {"record of 6 members",
     {Spec::Kind::kJsonSchema,
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,
          "maximum":150},"mail":{"type":"string","format":"email"},"tags":{"type":"array","items":{
          "enum":["red","green","blue"]}},"note":{"type":"string"},"ok":{"type":"boolean"}},
          "required":["name","age","ok"]})"}},
    {"strings of counted length",
     {Spec::Kind::kJsonSchema,
      R"({"type":"array","items":{"type":"string","minLength":3,"maxLength":200}})"}},
    {"tree of $ref",
     {Spec::Kind::kJsonSchema,
      R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"string"},"kids":{"type":"array",
          "items":{"$ref":"#/$defs/n"}}},"required":["v","kids"]}},"$ref":"#/$defs/n"})"}},
    {"expression: words and numbers", {Spec::Kind::kRegex, "(\\w+ ){3,40}\\d{4}-\\d{2}\\."}},
    {"hostile: many places", {Spec::Kind::kRegex, "(.{1,60}){1,60}c"}},
    {"hostile: counts in counts", {Spec::Kind::kRegex, "((.{1,40}.{1,40}){1,20}b?){1,20}c"}},
};

int32_t any_of(const TokenMask& mask, std::mt19937& random) {
  size_t count = 0;
  for (const uint64_t word : mask.words()) count += static_cast<size_t>(std::popcount(word));
  size_t skip = random() % count;
  for (size_t w = 0;; ++w) {
    const auto here = static_cast<size_t>(std::popcount(mask.words()[w]));
    if (skip >= here) {
      skip -= here;
      continue;
    }
    uint64_t word = mask.words()[w];
    for (; skip > 0; --skip) word &= word - 1;
    return static_cast<int32_t>(w * 64 + static_cast<size_t>(std::countr_zero(word)));
  }
}

/// Microseconds of each token of one answer; what ended it, when it was cut off.
Status answer(const ConstraintPtr& constraint, uint32_t seed, size_t tokens,
              std::vector<double>& out) {
  std::mt19937 random(seed);
  Guide guide(constraint);
  for (size_t i = 0; i < tokens && !guide.closed(); ++i) {
    const double start = cpu_s();
    const Result<TokenMaskPtr> mask = guide.allowed();
    double spent = cpu_s() - start;
    if (!mask.ok()) {
      out.push_back(spent * 1e6);
      return mask.status();
    }
    const int32_t token = any_of(**mask, random);
    const double again = cpu_s();
    if (Status taken = guide.take(token); !taken.ok()) return taken;
    spent += cpu_s() - again;
    out.push_back(spent * 1e6);
  }
  return {};
}

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

void print(const std::string& what, const std::vector<double>& us) {
  fmt::print("{:<42}{:>8}{:>10.1f}{:>10.1f}{:>10.1f}{:>12.1f}\n", what, us.size(), mean(us),
             quantile(us, 0.5), quantile(us, 0.99), quantile(us, 1.0));
}

void print_reference(size_t vocab) {
  std::vector<float> logits(vocab);
  for (size_t i = 0; i < vocab; ++i) logits[i] = static_cast<float>(i * 7919 % 1000) / 100.0f;
  std::vector<double> us, weights(vocab);
  double drawn = 0.0;
  for (int round = 0; round < 50; ++round) {
    const double start = cpu_s();
    double sum = 0.0;
    for (size_t i = 0; i < vocab; ++i) sum += weights[i] = std::exp(double{logits[i]} - 10.0);
    for (const double w : weights) {
      if ((drawn += w) > sum) break;
    }
    us.push_back((cpu_s() - start) * 1e6);
  }
  print(drawn > 0.0 ? "reference: softmax and draw" : "", us);
}

int measure(const Case& each, const std::shared_ptr<const TokenTable>& table, const Options& o) {
  const double start = cpu_s();
  const auto constraint = Constraint::compile(each.spec, table);
  const double compiled_ms = (cpu_s() - start) * 1e3;
  if (!constraint.ok()) {
    fmt::print(stderr, "chimera-bench: {}: {}\n", each.name, constraint.status().to_string());
    return 1;
  }
  std::vector<double> first, later;
  Status cut = answer(*constraint, 0, o.tokens, first);
  print(fmt::format("{}, first", each.name), first);
  for (uint32_t seed = 1; seed < o.answers && cut.ok(); ++seed)
    cut = answer(*constraint, seed, o.tokens, later);
  if (!later.empty()) print(fmt::format("{}, later", each.name), later);
  fmt::print("    compiled in {:.1f} ms, {} masks{}\n", compiled_ms, (*constraint)->masks_found(),
             cut.ok() ? "" : ", cut off: " + cut.message());
  return 0;
}

}  // namespace

int run_constraint(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  Options o;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("tokenizer", po::value(&o.tokenizer)->required(), "tokenizer.json");
  d.add_options()("answers", po::value(&o.answers)->default_value(o.answers),
                  "answers under each constraint");
  d.add_options()("tokens", po::value(&o.tokens)->default_value(o.tokens),
                  "tokens of an answer at most");
  if (const auto status = parse(d, args)) return *status;
  const auto tokenizer = Tokenizer::load(o.tokenizer);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "chimera-bench: {}\n", tokenizer.status().to_string());
    return 1;
  }
  const int64_t vocab = (*tokenizer)->vocab_size();
  const double start = cpu_s();
  const auto table = std::make_shared<const TokenTable>(*tokenizer, vocab, std::vector<int32_t>{0});
  fmt::print("{}: {} tokens, table of {:.1f} MB in {:.0f} ms\n", o.tokenizer, vocab,
             static_cast<double>(table->memory()) / 1e6, (cpu_s() - start) * 1e3);
  fmt::print("{:<42}{:>8}{:>10}{:>10}{:>10}{:>12}\n", "us per token", "tokens", "mean", "median",
             "p99", "max");
  print_reference(static_cast<size_t>(vocab));
  for (const Case& each : kCases) {
    if (const int status = measure(each, table, o)) return status;
  }
  return 0;
}

}  // namespace chimera::bench
