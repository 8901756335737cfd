#include "clients/gateway/run/dialects.h"

#include <fmt/format.h>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/gateway/dialect/grammar.h"

namespace chimera::gateway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kHolds = std::chrono::seconds(5);
constexpr size_t kMaxKnown = 64;  // variables of templates are the clients' own

/// A template that raises, as it has no place for tools or results, or a daemon that lets the
/// gateway see no rendering. All else, such as a full queue, says nothing of the dialect.
bool shows_nothing(const wire::Error& error) {
  return error.code == "invalid_argument" || error.code == "permission_denied";
}

/// The part that the words of an answer are to be; null when they may be any.
Json content_of(const std::optional<wire::Constraint>& constraint) {
  if (!constraint) return {};
  const auto json = [&] {  // it was JSON when it came
    auto read = parse_json(constraint->text);
    return read.ok() ? std::move(*read) : Json();
  };
  switch (constraint->kind) {
    case wire::Constraint::Kind::kJsonObject:
      return {{"json_object", true}};
    case wire::Constraint::Kind::kRegex:
      return {{"regex", constraint->text}};
    case wire::Constraint::Kind::kJsonSchema:
      return {{"json_schema", json()}, {"name", "response_format"}};
    case wire::Constraint::Kind::kParts:
      return {{"one_of", Json::array({json()})}};
  }
  return {};
}

/// An answer that is more than words, and not left to the model: the whole of it is a constraint.
void constrain(const Job& job, const Reading& reading, wire::Generate& options) {
  const bool framed = job.rules.any() || reading.opened || reading.dialect == Dialect::kHarmony;
  if (!job.rules.bind() && !(options.constraint && framed)) return;
  const Json content = content_of(options.constraint);
  options.constraint = {wire::Constraint::Kind::kParts,
                        write_json(answer_parts(reading, job.rules, content))};
  options.skip_special = false;  // none but marks can come
}

std::optional<ApiError> apply(Job& job, const Reading& reading) {
  for (wire::Call& call : job.calls) {
    const auto& conversation = std::get<wire::Chat>(call).conversation;
    if (!conversation.tools_json.empty() && !has_tools(reading.dialect)) {
      return unsupported("tools",
                         fmt::format("the model's dialect is {}, which has no calls of tools; "
                                     "models.dialect of the configuration may name another",
                                     kDialectNames.name(reading.dialect)));
    }
    options_of(call).skip_special = !writes_special(reading.dialect);
    constrain(job, reading, options_of(call));
  }
  job.answerer->reads(reading);
  return std::nullopt;
}

}  // namespace

/// What of a request its rendering depends on, but for words.
struct Dialects::Asked {
  explicit Asked(const Job& job) : after_tool(job.after_tool) {
    const auto& conversation = std::get<wire::Chat>(job.calls[0]).conversation;
    variables = conversation.chat_template_kwargs_json;
    tools = !conversation.tools_json.empty();
  }
  std::string key() const { return fmt::format("{}{}{}", tools, after_tool, variables); }

  std::string variables{};
  bool tools = false, after_tool;
};

/// Two renderings at most: of the sample, and of a question as the request's template variables
/// make it. The first serves for the second where the conversation ends with a tool's result.
class Dialects::Question : public std::enable_shared_from_this<Dialects::Question> {
 public:
  using Answer = std::function<void(std::variant<Reading, ApiError>)>;
  Question(Upstream& daemon, const Asked& asked, std::optional<Dialect> fixed, Answer answer)
      : daemon_(daemon), asked_(asked), fixed_(fixed), answer_(std::move(answer)) {}

  void ask() {
    if (fixed_ && !asked_.after_tool) return ask_opening();
    render(sample_messages(), /*tools=*/true, [self = shared_from_this()](const std::string* text) {
      self->reading_.dialect = text == nullptr ? Dialect::kThink : dialect_of(*text);
      if (!self->asked_.after_tool || text == nullptr) return self->ask_opening();
      self->opens(*text);
    });
  }

 private:
  void ask_opening() {
    const Json messages = Json::array({Json{{"role", "user"}, {"content", "x"}}});
    render(messages, asked_.tools, [self = shared_from_this()](const std::string* text) {
      self->opens(text == nullptr ? std::string() : *text);
    });
  }

  void opens(const std::string& prompt) {
    if (fixed_) reading_.dialect = *fixed_;
    reading_.opened = opens_reasoning(prompt);
    answer_(reading_);
  }

  /// Null for a template that does not take this conversation.
  void render(const Json& messages, bool tools, std::function<void(const std::string*)> then) {
    wire::Tokenize call;
    call.conversation = wire::Conversation{.messages_json = write_json(messages),
                                           .tools_json = tools ? write_json(sample_tools()) : "",
                                           .chat_template_kwargs_json = asked_.variables};
    daemon_.send(call, [self = shared_from_this(),
                        then = std::move(then)](client::Result<client::Event> event) {
      if (!event.ok()) return self->answer_(from_wire(event.error()));
      if (!event->is_error()) return then(event->body["text"].string());
      if (shows_nothing(event->error())) return then(nullptr);
      self->answer_(from_wire(event->error()));
    });
  }

  Upstream& daemon_;
  const Asked asked_;
  const std::optional<Dialect> fixed_;
  const Answer answer_;
  Reading reading_;
};

Dialects::Dialects(std::optional<Dialect> fixed)
    : fixed_(fixed), cache_(std::make_shared<Cache>()) {}

void Dialects::prepare(Upstream& daemon, Job& job,
                       std::function<void(std::optional<ApiError>)> ready) {
  if (job.calls.empty() || !std::holds_alternative<wire::Chat>(job.calls[0])) {
    return ready(std::nullopt);
  }
  if (fixed_ == Dialect::kPlain) return ready(apply(job, {}));
  const Asked asked(job);
  const auto known = cache_->find(asked.key());
  if (known != cache_->end() && Clock::now() - known->second.at < kHolds) {
    return ready(apply(job, known->second.reading));
  }
  auto answer = [&job, ready = std::move(ready), key = asked.key(),
                 cache = cache_](std::variant<Reading, ApiError> found) {
    if (auto* error = std::get_if<ApiError>(&found)) return ready(std::move(*error));
    const Reading& reading = std::get<Reading>(found);
    if (cache->size() >= kMaxKnown) cache->clear();
    (*cache)[key] = {reading, Clock::now()};
    ready(apply(job, reading));
  };
  std::make_shared<Question>(daemon, asked, fixed_, std::move(answer))->ask();
}

}  // namespace chimera::gateway
