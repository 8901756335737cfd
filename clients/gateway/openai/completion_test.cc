#include "clients/gateway/openai/completion.h"

#include <gmock/gmock.h>

namespace chimera::gateway::openai {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelNames names() {
  ModelNames out;
  Alias& alias = out.aliases["lawyer"];
  alias.modules.only = {"legal"};
  alias.modules.bias = {{"legal", 0.5}};
  alias.system = "Be brief.";
  alias.defaults = {{"temperature", 0.25}, {"max_tokens", 9}};
  return out;
}

std::variant<Completion, ApiError> read(Api api, std::string body, Headers headers = {}) {
  Request request;
  request.body = std::move(body);
  request.headers = std::move(headers);
  return read_completion(api, request, names());
}

Completion text(const std::string& fields, Headers headers = {}) {
  auto out = read(Api::kText, R"({"prompt":"p",)" + fields + "}", std::move(headers));
  if (auto* error = std::get_if<ApiError>(&out)) ADD_FAILURE() << error->text();
  return std::get<Completion>(out);
}

ApiError refused(Api api, const std::string& body) {
  auto out = read(api, body);
  EXPECT_TRUE(std::holds_alternative<ApiError>(out)) << body;
  return std::holds_alternative<ApiError>(out) ? std::get<ApiError>(out) : ApiError{};
}

TEST(Completion, FieldsBecomeThoseOfTheWire) {
  Completion asked =
      text(R"("model":"demo","max_tokens":7,"temperature":0,"top_p":0.5,"top_k":3,"min_p":0.1,)"
           R"("repetition_penalty":1.5,"seed":11,"stop":"end","stream":true,"logprobs":3,)"
           R"("frequency_penalty":-0.5,"presence_penalty":2,"logit_bias":{"5":-100},)"
           R"("chimera":{"deadline_ms":500,"shares":true,"modules":{"exclude":["bio"]}})");
  ASSERT_EQ(asked.calls.size(), 1u);
  const wire::Generate& options = options_of(asked.calls[0]);
  EXPECT_EQ(std::get<std::string>(options.prompt), "p");
  EXPECT_EQ(options.max_tokens, 7);
  EXPECT_EQ(options.temperature, 0.0);
  EXPECT_EQ(options.top_p, 0.5);
  EXPECT_EQ(options.top_k, 3);
  EXPECT_EQ(options.min_p, 0.1);
  EXPECT_EQ(options.repetition_penalty, 1.5);
  EXPECT_EQ(options.frequency_penalty, -0.5);
  EXPECT_EQ(options.presence_penalty, 2.0);
  EXPECT_EQ(options.logit_bias, (std::map<int32_t, double>{{5, -100.0}}));
  EXPECT_EQ(options.top_logprobs, 3);
  EXPECT_EQ(options.seed, 11u);
  EXPECT_THAT(options.stop, ElementsAre("end"));
  EXPECT_TRUE(options.stream && options.logprobs && asked.stream && asked.logprobs);
  EXPECT_EQ(options.deadline_ms, 500);
  EXPECT_TRUE(options.shares && asked.shares);
  // Whole answers have no place for what each token had.
  EXPECT_THAT(
      refused(Api::kText, R"({"model":"demo","prompt":"p","chimera":{"shares":true}})").text(),
      HasSubstr("chimera.shares"));
  EXPECT_THAT(options.modules.exclude, ElementsAre("bio"));
}

TEST(Completion, DefaultsAreThoseOfTheApi) {
  Completion asked = text(R"("model":"demo")");
  EXPECT_EQ(options_of(asked.calls[0]).max_tokens, 16);
  EXPECT_EQ(options_of(asked.calls[0]).temperature, 1.0);
  EXPECT_FALSE(options_of(asked.calls[0]).stream);
  auto chat = read(Api::kChat, R"({"model":"demo","messages":[{"role":"user","content":"x"}]})");
  Completion& talk = std::get<Completion>(chat);
  EXPECT_EQ(options_of(talk.calls[0]).max_tokens, 1'000'000);  // to the end of the context
}

TEST(Completion, NullIsAbsent) {
  Completion asked = text(R"("model":"demo","max_tokens":null,"stop":null,"seed":null,"n":null,)"
                          R"("logit_bias":null,"stream":null,"stream_options":null)");
  EXPECT_EQ(options_of(asked.calls[0]).max_tokens, 16);
}

TEST(Completion, ChoicesHaveSeedsOfTheirOwn) {
  Completion asked = text(R"("model":"demo","n":3,"seed":9223372036854775806)");
  ASSERT_EQ(asked.calls.size(), 3u);
  EXPECT_EQ(options_of(asked.calls[0]).seed, 9223372036854775806u);
  EXPECT_EQ(options_of(asked.calls[1]).seed, 9223372036854775807u);
  EXPECT_EQ(options_of(asked.calls[2]).seed, 0u);  // the wire has no larger one
}

TEST(Completion, CompositionsNarrow) {
  const auto modules = [](const std::string& fields, Headers headers = {}) {
    Completion asked = text(fields, std::move(headers));
    return options_of(asked.calls[0]).modules;
  };
  EXPECT_EQ(modules(R"("model":"demo")").only, std::nullopt);
  EXPECT_THAT(*modules(R"("model":"demo:base")").only, ElementsAre());
  EXPECT_THAT(*modules(R"("model":"demo:legal+bio")").only, ElementsAre("legal", "bio"));
  EXPECT_THAT(
      *modules(R"("model":"demo:legal+bio","chimera":{"modules":{"only":["bio","tax"]}})").only,
      ElementsAre("bio"));
  const auto alias = modules(R"("model":"lawyer")");
  EXPECT_THAT(*alias.only, ElementsAre("legal"));
  EXPECT_EQ(alias.bias.at("legal"), 0.5);
  const auto headers = modules(R"("model":"demo")", {{"chimera-modules-only", "legal, bio"},
                                                     {"chimera-modules-exclude", "bio"},
                                                     {"chimera-modules-bias", "legal=-1.5"}});
  EXPECT_THAT(*headers.only, ElementsAre("legal", "bio"));
  EXPECT_THAT(headers.exclude, ElementsAre("bio"));
  EXPECT_EQ(headers.bias.at("legal"), -1.5);
}

TEST(Completion, AnAliasBringsDefaultsThatTheRequestOverrides) {
  Completion asked = text(R"("model":"lawyer","temperature":0.75)");
  EXPECT_EQ(options_of(asked.calls[0]).temperature, 0.75);
  EXPECT_EQ(options_of(asked.calls[0]).max_tokens, 9);
  auto chat = read(Api::kChat, R"({"model":"lawyer","messages":[{"role":"user","content":"x"}]})");
  const auto& call = std::get<wire::Chat>(std::get<Completion>(chat).calls[0]);
  EXPECT_EQ(call.conversation.messages_json,
            R"([{"role":"system","content":"Be brief."},{"role":"user","content":"x"}])");
  auto own = read(Api::kChat, R"({"model":"lawyer","messages":[{"role":"system","content":"y"}]})");
  EXPECT_EQ(std::get<wire::Chat>(std::get<Completion>(own).calls[0]).conversation.messages_json,
            R"([{"role":"system","content":"y"}])");
}

TEST(Completion, MessagesAsTemplatesTakeThem) {
  auto out =
      read(Api::kChat,
           R"({"model":"demo","messages":[{"role":"developer","content":"d"},)"
           R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},)"
           R"({"role":"assistant","content":"c","refusal":null,"tool_calls":null}]})");
  EXPECT_EQ(std::get<wire::Chat>(std::get<Completion>(out).calls[0]).conversation.messages_json,
            R"([{"role":"system","content":"d"},{"role":"user","content":"ab"},)"
            R"({"role":"assistant","content":"c"}])");
}

TEST(Completion, ToolsGoToTheTemplate) {
  const std::string chat =
      R"({"model":"demo","messages":[{"role":"user","content":"x"}],)"
      R"("tools":[{"type":"function","function":{"name":"f","strict":false}}])";
  const std::string written =
      R"([{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}])";
  const auto tools = [&](const std::string& more) {
    auto out = read(Api::kChat, chat + more + "}");
    if (auto* error = std::get_if<ApiError>(&out)) return error->text();
    return std::get<wire::Chat>(std::get<Completion>(out).calls[0]).conversation.tools_json;
  };
  EXPECT_EQ(tools(""), written);
  EXPECT_EQ(tools(R"(,"tool_choice":"auto")"), written);
  EXPECT_EQ(tools(R"(,"tool_choice":"none")"), "");
  const auto rules = [&](const std::string& more) {
    auto out = read(Api::kChat, chat + more + "}");
    if (auto* error = std::get_if<ApiError>(&out)) ADD_FAILURE() << error->text();
    return std::get<Completion>(out).rules;
  };
  EXPECT_FALSE(rules("").bind());
  EXPECT_TRUE(rules(R"(,"tool_choice":"required")").must);
  const CallRules named = rules(
      R"(,"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false)");
  EXPECT_EQ(named.only, "f");
  EXPECT_FALSE(named.parallel);
  EXPECT_EQ(refused(Api::kChat, chat + R"(,"tool_choice":{"type":"custom"}})").code,
            "unsupported_parameter");
}

TEST(Completion, ErrorsNameTheFieldOfTheApi) {
  const auto param = [](const std::string& fields) {
    return refused(Api::kText, R"({"prompt":"p","model":"demo",)" + fields + "}").param;
  };
  EXPECT_EQ(param(R"("top_p":0)"), "top_p");
  EXPECT_EQ(param(R"("stop":[""])"), "stop");
  EXPECT_EQ(param(R"("n":129)"), "n");
  EXPECT_EQ(param(R"("temprature":1)"), "temprature");
  EXPECT_EQ(param(R"("logit_bias":{"1":101})"), "logit_bias.1");
  EXPECT_EQ(param(R"("logit_bias":{"x":1})"), "logit_bias");
  EXPECT_EQ(param(R"("frequency_penalty":2.5)"), "frequency_penalty");
  EXPECT_EQ(param(R"("logprobs":21)"), "logprobs");
  EXPECT_EQ(refused(Api::kChat, R"({"model":"demo","messages":[{"role":"user","content":"x"}],)"
                                R"("top_logprobs":2})")
                .param,
            "top_logprobs");
  EXPECT_EQ(param(R"("stream":true,"stream_options":{"usage":true})"), "usage");
  const ApiError most = refused(
      Api::kChat,
      R"({"model":"demo","messages":[{"role":"user","content":"x"}],"max_completion_tokens":0})");
  EXPECT_EQ(most.param, "max_completion_tokens");
  EXPECT_THAT(most.message, HasSubstr("max_completion_tokens: 0 (expected"));
  EXPECT_EQ(refused(Api::kText, R"({"prompt":"p","model":"gpt-4"})").status, 404u);
  EXPECT_EQ(refused(Api::kText, "[]").code, "invalid_json");
  EXPECT_EQ(refused(Api::kChat, R"({"model":"demo"})").param, "messages");
}

TEST(Completion, ResponseFormatsBecomeConstraints) {
  const std::string begin = R"({"model":"demo","messages":[{"role":"user","content":"x"}],)"
                            R"("response_format":)";
  const auto constraint = [&](const std::string& format) {
    auto out = read(Api::kChat, begin + format + "}");
    if (auto* error = std::get_if<ApiError>(&out)) ADD_FAILURE() << error->text();
    return options_of(std::get<Completion>(out).calls[0]).constraint;
  };
  EXPECT_FALSE(constraint(R"({"type":"text"})"));
  EXPECT_FALSE(constraint("null"));
  EXPECT_EQ(constraint(R"({"type":"json_object"})")->kind, wire::Constraint::Kind::kJsonObject);
  const auto schema = constraint(
      R"({"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"b":1,"a":2}}})");
  EXPECT_EQ(schema->kind, wire::Constraint::Kind::kJsonSchema);
  EXPECT_EQ(schema->text, R"({"b":1,"a":2})");
  const auto message = [&](const std::string& format) {
    return refused(Api::kChat, begin + format + "}").message;
  };
  EXPECT_THAT(message(R"({"type":"xml"})"), HasSubstr("response_format.type"));
  EXPECT_THAT(message(R"({"type":"json_schema"})"), HasSubstr("response_format.json_schema"));
  EXPECT_THAT(message(R"({"type":"json_schema","json_schema":{"name":"n"}})"), HasSubstr("schema"));
  EXPECT_THAT(message(R"({"type":"text","mode":1})"), HasSubstr("mode"));
}

TEST(Completion, PromptsAsTheApiHasThem) {
  auto out = read(Api::kText, R"({"model":"demo","n":2,"prompt":["a",[5,6]]})");
  Completion& asked = std::get<Completion>(out);
  ASSERT_EQ(asked.calls.size(), 4u);
  EXPECT_EQ(asked.per_prompt, 2u);
  EXPECT_EQ(std::get<std::string>(options_of(asked.calls[1]).prompt), "a");
  EXPECT_THAT(std::get<std::vector<int32_t>>(options_of(asked.calls[2]).prompt), ElementsAre(5, 6));
  EXPECT_EQ(refused(Api::kText, R"({"model":"demo","n":100,"prompt":["a","b"]})").param, "prompt");
  EXPECT_EQ(refused(Api::kText, R"({"model":"demo","prompt":7})").param, "prompt");
}

}  // namespace
}  // namespace chimera::gateway::openai
