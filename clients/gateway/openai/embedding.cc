#include "clients/gateway/openai/embedding.h"

#include <fmt/format.h>

#include "clients/gateway/body/members.h"
#include "clients/gateway/body/wire_call.h"
#include "clients/gateway/openai/unsupported.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway::openai {
namespace {

constexpr size_t kMaxInputs = 2048;  // as the API says
// Each input is a call with the composition's names of its own: a small body must not become
// gigabytes of them. All 4,096 modules for 16 inputs, or 32 of them for all inputs.
constexpr size_t kMaxNames = 64 << 10;

size_t names_of(const wire::ModuleFilter& filter) {
  return (filter.only ? filter.only->size() : 0) + filter.exclude.size() + filter.bias.size() +
         filter.adapters.size();
}

class EmbeddingReader {
 public:
  explicit EmbeddingReader(const Json& body) : members_(body) {}

  std::variant<EmbeddingRequest, ApiError> read(const Request& request, const ModelNames& names) {
    call_.composition(members_, request, names, WireCall::Purpose::kEmbedding);
    if (!members_.ok()) return *members_.finish();
    out_.model = call_.model();
    refuse_unsupported_of_embeddings(members_);
    encoding();
    inputs();
    if (auto problem = members_.finish()) return *problem;
    return std::move(out_);
  }

 private:
  void encoding() {
    const Json* format = members_.take("encoding_format");
    if (format == nullptr) return;
    out_.base64 = *format == Json("base64");
    if (!out_.base64 && *format != Json("float")) {
      members_.bad("encoding_format", *format, "float or base64");
    }
  }

  /// One input or several; each a text or token ids.
  void inputs() {
    const Json* input = members_.take("input");
    if (input == nullptr) {
      return members_.fail(bad_field("input", "missing (expected a text)"));
    }
    const bool several = input->is_array() && (input->at(0).is_string() || input->at(0).is_array());
    if (!several) return add(*input, "input");
    if (input->size() > kMaxInputs) {
      return members_.fail(bad_field(
          "input", fmt::format("{} of them (expected at most {})", input->size(), kMaxInputs)));
    }
    for (size_t i = 0; i < input->size() && members_.ok(); ++i) {
      add(input->at(i), fmt::format("input[{}]", i));
      if (i == 0) check_names(input->size());
    }
  }

  void check_names(size_t inputs) {
    if (out_.calls.empty()) return;
    const size_t names = names_of(std::get<wire::Embed>(out_.calls.front()).modules);
    if (names * inputs <= kMaxNames) return;
    members_.fail(bad_field(
        "input", fmt::format("{} of them, for a composition of {} names (expected at most {})",
                             inputs, names, kMaxNames / names)));
  }

  /// `name`: of this input, in messages.
  void add(const Json& input, const std::string& name) {
    Json& wire = call_.fields();
    const std::string* text = input.string();
    if (text == nullptr && !input.is_array()) {
      return members_.bad(name, input, "a text, token ids, or an array of these");
    }
    if (text != nullptr && text->empty()) {
      return members_.fail(bad_field(name, "empty (expected at least one character)"));
    }
    wire.erase(text == nullptr ? "text" : "tokens");
    wire[text == nullptr ? "tokens" : "text"] = input;
    for (const char* field : {"text", "tokens"}) call_.rename(field, name);
    if (!members_.ok()) return;
    auto call = call_.read("embed");
    if (auto* error = std::get_if<ApiError>(&call)) return members_.fail(std::move(*error));
    out_.calls.push_back(std::get<wire::Call>(std::move(call)));
  }

  Members members_;
  EmbeddingRequest out_;
  WireCall call_;
};

}  // namespace

std::variant<EmbeddingRequest, ApiError> read_embedding_request(const Request& request,
                                                                const ModelNames& names) {
  const auto body = parse_body(request.body);
  if (const auto* error = std::get_if<ApiError>(&body)) return *error;
  return EmbeddingReader(std::get<Json>(body)).read(request, names);
}

}  // namespace chimera::gateway::openai
