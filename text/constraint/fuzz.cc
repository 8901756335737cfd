// Fuzz target: a letter for the kind, then a regular expression, a schema or parts. Whatever
// compiles must let some text be written: from every state that a walk comes to, a complete text
// can be reached.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

#include "base/json/reader.h"
#include "text/constraint/json_schema.h"
#include "text/constraint/matcher.h"
#include "text/constraint/parts.h"
#include "text/constraint/pattern.h"

namespace {

using namespace chimera;
using namespace chimera::constraint;

/// Two letters and a special token.
const TokenTable& tokens() {
  static const TokenTable table(
      *Tokenizer::parse(R"({"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]},
                           "added_tokens":[{"id":2,"content":"<m>","special":true}]})",
                        "fuzz"),
      3, {});
  return table;
}

Result<Network> compile(char kind, std::string_view text) {
  if (kind == 's') {
    const Result<Json> schema = parse_json(text);
    if (!schema.ok()) return schema.status();
    return schema_network(*schema, "schema");
  }
  if (kind == 'p') {
    const Result<Json> parts = parse_json(text);
    if (!parts.ok()) return parts.status();
    return parts_network(*parts, tokens(), "parts");
  }
  const auto branches = parse_pattern(text);
  if (!branches.ok()) return branches.status();
  NetworkBuilder builder;
  const Spelling spelling = kind == 'j' ? Spelling::kJson : Spelling::kPlain;
  PatternWriter writer(builder, spelling);
  const NodeId start = spelling == Spelling::kJson ? writer.write_search(*branches, builder.end())
                                                   : writer.write_whole(*branches, builder.end());
  const RuleId root = builder.rule("expression", start);
  return std::move(builder).finish(root, "regex");
}

/// Goes on for a while with whatever byte comes next, turned by `turn`.
void walk(const std::shared_ptr<const Network>& network, unsigned turn) {
  Matcher matcher(network);
  StateId state = matcher.start();
  for (int steps = 0; steps < 64 && matcher.work() < 200'000; ++steps) {
    if (state == Matcher::kTooMany) return;
    if (state == Matcher::kDead) std::abort();  // the empty language is refused
    if (!matcher.goes_on(state)) {
      if (!matcher.accepts(state)) std::abort();  // stuck
      return;
    }
    StateId next = Matcher::kDead;
    for (unsigned i = 0; i < 256 && next == Matcher::kDead; ++i) {
      next = matcher.next(state, static_cast<uint8_t>(i * 37 + turn * 101));
    }
    if (next == Matcher::kDead) std::abort();  // it said that it goes on
    state = next;
    turn = turn * 5 + 1;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.empty()) return 0;
  Result<Network> network = compile(input[0], input.substr(1));
  if (!network.ok()) {
    if (network.status().message().empty()) std::abort();
    return 0;
  }
  const auto shared = std::make_shared<const Network>(std::move(*network));
  for (unsigned turn = 0; turn < 4; ++turn) walk(shared, turn);
  return 0;
}
