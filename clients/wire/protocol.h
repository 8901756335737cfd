// The wire protocol `chimera/1` (design §8, clients/PROTOCOL.md): frames, field ranges, errors.
//
// Both sides use this room: the daemon decodes requests and encodes answers with it, clients the
// other way round. It depends on nothing of the engine. Decoding is strict: one declared range per
// field, unknown fields and types refused, JSON depth and size bounded, UTF-8 checked.
//
// Thread safety: free functions and values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace chimera::wire {

inline constexpr std::string_view kMagic = "CHIMERA/1";
inline constexpr size_t kMaxMessageBytes = 4u << 20;  // a request frame; ZMQ_MAXMSGSIZE of servers
inline constexpr size_t kMaxPromptTokens = 1u << 20;
inline constexpr int kMaxJsonDepth = 64;

/// Codes are the spellings of chimera/status_code.h.
struct Error {
  std::string code;
  std::string message;
  std::string hint;
};

struct ModuleFilter {
  std::optional<std::vector<std::string>> only;
  std::vector<std::string> exclude;
  std::map<std::string, double> bias;
  std::vector<std::string> adapters = {};  // modules of kind lora, beside those of `only`
};

/// What the answer may be (docs/constraints.md). The daemon reads the schema, the expression and
/// the parts.
struct Constraint {
  enum class Kind : uint8_t { kJsonObject, kJsonSchema, kRegex, kParts } kind = Kind::kJsonObject;
  std::string text{};  // schema or parts as JSON, keys in the client's order; or the expression
};

/// Text or token ids, exactly one.
using Input = std::variant<std::string, std::vector<int32_t>>;

struct Generate {
  Input prompt;
  int64_t max_tokens = 256;
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  std::map<int32_t, double> logit_bias;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool skip_special = true;
  bool logprobs = false;
  int64_t top_logprobs = 0;
  bool shares = false;
  bool stream = true;
  std::optional<int64_t> deadline_ms;
  std::optional<Constraint> constraint{};
  ModuleFilter modules;
  bool receipt = false;
};
struct ChatMessage {
  std::string role, content;
};
/// A conversation for the chat template. Everything is JSON text as the client wrote it, because
/// templates print objects with their keys in the client's order; "" for absent.
struct Conversation {
  std::string messages_json{};              // array of objects, each with a role
  std::string tools_json{};                 // array of objects
  std::string documents_json{};             // array of objects
  std::string chat_template_kwargs_json{};  // object: more variables of the template
  bool add_generation_prompt = true;
};
struct Chat {
  Conversation conversation;
  Generate options;  // prompt unused
};
struct Score {
  Input input;
  bool logits = false;
  bool routing = false;
  std::optional<int64_t> deadline_ms;
  ModuleFilter modules;
  bool receipt = false;
};
/// The final norm's output of all positions as one vector.
struct Embed {
  Input input;
  bool last = false;  // pooling: last
  bool normalize = true;
  std::optional<int64_t> deadline_ms;
  ModuleFilter modules;
};
struct Tokenize {
  std::string text;
  bool add_special = false;  // run the tokenizer's post-processor (bos and the like)
  // False: what `generate` and `score` make of a text, where special tokens that it spells are
  // plain characters. True: they become those tokens, as the tokenizer's own library reads it; for
  // texts that nobody else wrote.
  bool match_special = false;
  std::optional<Conversation> conversation{};  // instead of the text
};
struct Detokenize {
  std::vector<int32_t> tokens;
  bool skip_special = false;
};
struct Cancel {
  std::string target;
};  // id of the request to end
struct Info {};
struct Health {};
struct Modules {};
/// How the answer to a change that loads is waited for.
struct Waiting {
  bool wait = true;  // false: answered at once with the job, which goes on by itself
  bool detach = false;
  bool progress = false;
};
struct Load {
  std::string path;
  std::optional<std::string> name;
  std::optional<bool> enabled;
  std::optional<double> bias;
  std::optional<std::string> precision{};
  bool restart = false;  // in_flight: restart
  std::optional<double> canary{};
  Waiting waiting{};
  std::optional<double> weight{};
};
struct Unload {
  std::string name;
};
struct Revoke {
  std::string name;
  bool proof = false;
};
struct Enable {
  std::string name;
};
struct Disable {
  std::string name;
};
/// What a composition becomes: the block alone, or a whole deployment file, of which the rest is
/// compared with what runs. Exactly one of the two.
struct Wish {
  std::string composition_json{};
  std::string deployment_json{};
  std::string directory{};  // of the deployment: where its relative paths start
};
struct Plan {
  Wish wish;
  bool probe = false;  // load and probe it all
};
struct Apply {
  Wish wish;
  bool restart = false;
  Waiting waiting{};
};
struct Rollback {
  std::optional<uint64_t> epoch;
  Waiting waiting{};
};
struct Epochs {};
struct Routing {
  std::optional<int64_t> layer;
  bool reset = false;  // what is counted from now on is told next
};
/// The requests in progress, of all clients.
struct Requests {};
/// `cancel` of the control endpoint: ends the requests of that id, whoever sent them, or the job.
struct CancelAny {
  std::string target;
};
struct Bias {
  std::string name;
  double value = 0.0;
};
/// Other coefficients of the parents of an assembly, by their names.
struct Blend {
  std::string name;
  std::map<std::string, double> lambda{};
  bool restart = false;  // in_flight: restart
  Waiting waiting{};
};
/// What a part of the new sequences tries (`load` with `canary`), and its ends.
struct Canary {};
struct Promote {};
struct Abort {};
struct Stats {};
/// The record of control calls and refusals, oldest first.
struct Audit {
  std::optional<int64_t> since;  // seconds of UTC since 1970
  int64_t limit = 100;           // the newest of them
};
/// What clients took of modules, by the hour.
struct Usage {
  std::optional<int64_t> since;  // seconds of UTC since 1970
  int64_t limit = 20'000;        // rows; more: resource_exhausted
};
struct Drain {
  std::optional<int64_t> timeout_ms;
};
struct Shutdown {};

using Call = std::variant<Generate, Chat, Score, Embed, Tokenize, Detokenize, Cancel, Info, Health,
                          Modules, Load, Unload, Revoke, Plan, Apply, Rollback, Epochs, Routing,
                          Bias, Blend, Canary, Promote, Abort, Enable, Disable, Requests, CancelAny,
                          Stats, Audit, Usage, Drain, Shutdown>;

enum class Endpoint : uint8_t { kServe, kControl };

/// Name of the call on the wire, e.g. "generate".
std::string_view call_name(const Call& call);
/// The socket that takes the call.
Endpoint endpoint_of(const Call& call);
/// Whether the answer is to have a signed statement of what made it.
bool wants_receipt(const Call& call);
/// The alternative of that index, with the defaults of its fields.
Call empty_call(size_t index);

struct Request {
  std::string id;  // 1..128 bytes of UTF-8 without control characters
  Call call;
  std::string traceparent{};  // of W3C Trace Context, version 00; "": of no trace
};

/// Decodes the JSON frame of a request. On failure `Error` and, when it could be read, the id in
/// `id_out`, so that the error can be answered to the right request.
std::variant<Request, Error> decode_request(std::string_view json, Endpoint endpoint,
                                            std::string* id_out);
/// Plain messages as Conversation::messages_json takes them.
std::string messages_json(const std::vector<ChatMessage>& messages);

/// The JSON frame of a request (clients).
std::string encode_request(const Request& request);

/// {"id":…, "event":"error", "code":…, "message":…, "hint":…}
std::string encode_error(std::string_view id, const Error& error);

}  // namespace chimera::wire
