// Every call of `chimera/1` and its fields, described once.
//
// describe(visitor, call) tells the visitor of each field in turn: its range, where its value lives
// in the struct of the call (which also holds the default), and what it means. Whoever deals with
// fields is a visitor: the decoder and the encoder of requests, and the writers of the tables in
// PROTOCOL.md and of the JSON Schema (describe.h). A new call is its struct and alternative in
// protocol.h, its row and description here, and its handler; a new field is its member and one line
// here.
//
// Thread safety: constants and free functions.
#pragma once

#include <array>
#include <string_view>
#include <variant>

#include "clients/wire/protocol.h"
#include "clients/wire/ranges.h"

namespace chimera::wire {

struct CallSpec {
  std::string_view name;
  Endpoint endpoint;
  std::string_view purpose;
};

// In the order of the alternatives of Call, so that an index finds its row.
inline constexpr std::array<CallSpec, std::variant_size_v<Call>> kCalls{{
    {"generate", Endpoint::kServe, "continues a prompt"},
    {"chat", Endpoint::kServe, "answers a conversation"},
    {"score", Endpoint::kServe, "says how likely a text is"},
    {"embed", Endpoint::kServe, "turns a text into a vector"},
    {"tokenize", Endpoint::kServe, "turns a text or a conversation into token ids"},
    {"detokenize", Endpoint::kServe, "turns token ids into text"},
    {"cancel", Endpoint::kServe, "ends a request of the same connection"},
    {"info", Endpoint::kServe, "tells what is served"},
    {"health", Endpoint::kServe, "tells whether requests are taken"},
    {"modules", Endpoint::kControl, "lists the modules and their state"},
    {"load", Endpoint::kControl, "loads a module, or puts it in the place of its namesake"},
    {"unload", Endpoint::kControl, "takes a module out; streams that use it finish"},
    {"revoke", Endpoint::kControl, "takes a module out of every stream at once"},
    {"plan", Endpoint::kControl, "tells what `apply` would do"},
    {"apply", Endpoint::kControl, "changes to another composition as a whole"},
    {"rollback", Endpoint::kControl, "goes back to an earlier composition"},
    {"epochs", Endpoint::kControl, "lists live and past epochs"},
    {"routing", Endpoint::kControl, "tells how tokens were spread over experts"},
    {"bias", Endpoint::kControl, "sets a module's bias at the gate"},
    {"blend", Endpoint::kControl, "sets how much of each parent is in a module of kind assembly"},
    {"canary", Endpoint::kControl, "tells what a part of the new requests tries, and how it does"},
    {"promote", Endpoint::kControl, "makes what the canary tries current"},
    {"abort", Endpoint::kControl, "takes the canary away at once"},
    {"enable", Endpoint::kControl, "uses a module that is loaded and disabled"},
    {"disable", Endpoint::kControl, "keeps a module loaded and unused"},
    {"requests", Endpoint::kControl, "lists the requests in progress"},
    {"cancel", Endpoint::kControl, "ends the requests of an id, whoever sent them, or a job"},
    {"stats", Endpoint::kControl, "tells counters"},
    {"audit", Endpoint::kControl, "tells who asked for what"},
    {"usage", Endpoint::kControl, "tells what clients took of modules"},
    {"drain", Endpoint::kControl, "refuses new requests and waits for the others"},
    {"shutdown", Endpoint::kControl, "drains and ends the daemon"},
}};

template <class V>
void describe_options(V& v, Generate& c) {
  v.integer(range::max_tokens, c.max_tokens, "tokens of the answer at most");
  v.real(range::temperature, c.temperature, "of sampling; 0 is greedy");
  v.real(range::top_p, c.top_p, "smallest set of tokens with this mass; 1 is all");
  v.integer(range::top_k, c.top_k, "this many most likely tokens; 0 is all");
  v.real(range::min_p, c.min_p, "tokens at least this likely beside the best one; 0 is all");
  v.real(range::repetition_penalty, c.repetition_penalty, "for tokens used already; 1 is off");
  v.real(range::frequency_penalty, c.frequency_penalty,
         "taken from a token's logit for every time it was generated");
  v.real(range::presence_penalty, c.presence_penalty,
         "taken once from the logit of a token that was generated");
  v.biases(range::logit_bias, range::kMaxLogitBiases, c.logit_bias,
           "added to the logits of tokens");
  v.integer(range::seed, c.seed, "of sampling; else chosen by the daemon");
  v.list(range::stop, range::stop.name, range::kMaxStops, c.stop,
         "strings that end the answer and are no part of it");
  v.constraint(c.constraint, "what the answer may be; not beside `ignore_eos`");
  v.boolean("ignore_eos", c.ignore_eos, "go on after the end-of-text token");
  v.boolean("skip_special", c.skip_special, "text without special tokens");
  v.boolean("logprobs", c.logprobs, "natural logarithms of the tokens' probabilities");
  v.integer(range::top_logprobs, c.top_logprobs,
            "the most likely tokens at each place, this many; above 0 `logprobs` come as well");
  v.boolean("shares", c.shares, "modules' shares of each token, in its event");
  v.boolean("stream", c.stream, "token events; false: the whole answer in `done`");
  v.integer(range::deadline_ms, c.deadline_ms, "milliseconds from arrival");
  v.modules(c.modules, "narrows what the composition offers");
  v.boolean("receipt", c.receipt, "a signed statement of what made the answer");
}

template <class V>
void describe(V& v, Generate& c) {
  v.input(range::prompt, c.prompt, "what to continue");
  describe_options(v, c);
}

template <class V>
void describe(V& v, Chat& c) {
  v.conversation(c.conversation);
  describe_options(v, c.options);
}

template <class V>
void describe(V& v, Score& c) {
  v.input(range::text, c.input, "what to score");
  v.boolean("logits", c.logits, "all logits, in a binary frame");
  v.boolean("routing", c.routing, "the experts chosen for every layer and token");
  v.integer(range::deadline_ms, c.deadline_ms, "milliseconds from arrival");
  v.modules(c.modules, "narrows what the composition offers");
  v.boolean("receipt", c.receipt, "a signed statement of what made the answer");
}

template <class V>
void describe(V& v, Embed& c) {
  v.input(range::text, c.input, "what to turn into a vector");
  v.choice("pooling", {"mean", "last"}, c.last,
           "the mean over all tokens, or the last one, which has seen all of them");
  v.boolean("normalize", c.normalize, "of length 1");
  v.integer(range::deadline_ms, c.deadline_ms, "milliseconds from arrival");
  v.modules(c.modules, "narrows what the composition offers");
}

template <class V>
void describe(V& v, Tokenize& c) {
  if (v.conversation_instead(range::text, c.conversation)) return;
  v.text(range::text, c.text, "what to tokenize");
  v.boolean("add_special", c.add_special, "with the tokens that the tokenizer puts around a text");
  v.boolean("match_special", c.match_special,
            "special tokens that the text spells become those tokens");
}

template <class V>
void describe(V& v, Detokenize& c) {
  v.tokens(c.tokens, "what to write out");
  v.boolean("skip_special", c.skip_special, "without special tokens");
}

template <class V>
void describe(V& v, Cancel& c) {
  v.label(range::target, c.target, "id of the request to end");
}
template <class V>
void describe(V&, Info&) {}
template <class V>
void describe(V&, Health&) {}
template <class V>
void describe(V&, Modules&) {}

template <class V>
void describe_waiting(V& v, Waiting& c) {
  v.boolean("wait", c.wait, "false: answered at once, with the `job` that goes on by itself");
  v.boolean("detach", c.detach, "go on when the connection is lost, which cancels it otherwise");
  v.boolean("progress", c.progress, "`progress` events until the answer");
}

template <class V>
void describe(V& v, Load& c) {
  v.label(range::path, c.path, "directory of the module, absolute");
  v.label(range::name, c.name, "must be the manifest's, when given");
  v.boolean("enabled", c.enabled, "else as the namesake before it, else true");
  v.real(range::bias, c.bias, "added to its logits at the gate; else as the namesake's, else 0");
  v.label(range::precision, c.precision,
          "in which its experts are kept, a name that `backbone.precision` takes; else as the "
          "namesake's, else as its manifest or the deployment says");
  v.real(range::weight, c.weight,
         "of a bundle, beside others; else as the namesake's, else as its manifest says");
  v.choice("in_flight", {"pin", "restart"}, c.restart,
           "whether streams finish where they are or move along");
  v.real(range::canary, c.canary,
         "only this part of the new requests gets it, by client and id, until `promote`");
  describe_waiting(v, c.waiting);
}

template <class V>
void describe(V& v, Unload& c) {
  v.label(range::name, c.name, "of the module");
}
template <class V>
void describe(V& v, Revoke& c) {
  v.label(range::name, c.name, "of the module");
  v.boolean("proof", c.proof, "a signed statement of what became of the module");
}
template <class V>
void describe(V& v, Enable& c) {
  v.label(range::name, c.name, "of the module");
}
template <class V>
void describe(V& v, Disable& c) {
  v.label(range::name, c.name, "of the module");
}

template <class V>
void describe(V& v, Plan& c) {
  v.wish(c.wish);
  v.boolean("probe", c.probe, "load and probe all of it; else manifests and headers tell");
}
template <class V>
void describe(V& v, Apply& c) {
  v.wish(c.wish);
  v.choice("in_flight", {"pin", "restart"}, c.restart,
           "whether streams finish where they are or move along");
  describe_waiting(v, c.waiting);
}
template <class V>
void describe(V& v, Rollback& c) {
  v.integer(range::epoch, c.epoch, "else the change before the current one");
  describe_waiting(v, c.waiting);
}
template <class V>
void describe(V&, Epochs&) {}
template <class V>
void describe(V& v, Routing& c) {
  v.integer(range::layer, c.layer, "else all layers");
  v.boolean("reset", c.reset, "count anew from here on");
}
template <class V>
void describe(V& v, Bias& c) {
  v.label(range::name, c.name, "of the module");
  v.required(range::value, c.value, "added to its logits at the gate");
}
template <class V>
void describe(V& v, Blend& c) {
  v.label(range::name, c.name, "of the module");
  v.weights(
      range::lambda, kMaxParents, c.lambda,
      "the coefficients of parents; the others keep theirs, the base has what is missing to 1");
  v.choice("in_flight", {"pin", "restart"}, c.restart,
           "whether streams finish where they are or move along");
  describe_waiting(v, c.waiting);
}
template <class V>
void describe(V&, Canary&) {}
template <class V>
void describe(V&, Promote&) {}
template <class V>
void describe(V&, Abort&) {}
template <class V>
void describe(V&, Requests&) {}
template <class V>
void describe(V& v, CancelAny& c) {
  v.label(range::target, c.target, "id of the requests, or of the job, to end");
}
template <class V>
void describe(V&, Stats&) {}
template <class V>
void describe(V& v, Audit& c) {
  v.integer(range::since, c.since, "seconds of UTC since 1970; else from the beginning");
  v.integer(range::limit, c.limit, "the newest entries, this many at most");
}
template <class V>
void describe(V& v, Usage& c) {
  v.integer(range::since, c.since,
            "seconds of UTC since 1970: hours that end later; else from the beginning");
  v.integer(range::usage_limit, c.limit, "rows at most, else it is refused");
}
template <class V>
void describe(V& v, Drain& c) {
  v.integer(range::timeout_ms, c.timeout_ms, "milliseconds to wait; else 30000");
}
template <class V>
void describe(V&, Shutdown&) {}

}  // namespace chimera::wire
