#include "clients/wire/protocol.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json/testing.h"
#include "base/json/writer.h"
#include "clients/wire/ranges.h"
#include "clients/wire/strict_json.h"

namespace chimera::wire {
namespace {

Endpoint socket_of(const std::string& call) {
  static const std::vector<std::string> serve = {
      "generate", "chat", "score", "embed", "tokenize", "detokenize", "cancel", "info", "health"};
  return std::find(serve.begin(), serve.end(), call) != serve.end() ? Endpoint::kServe
                                                                    : Endpoint::kControl;
}

/// The smallest request of each call that decodes.
Json minimal(const std::string& call) {
  Json out = {{"id", "r1"}, {"call", call}};
  if (call == "generate") out["prompt"] = "x";
  if (call == "chat") out["messages"] = Json::array({{{"role", "user"}, {"content", "x"}}});
  if (call == "score" || call == "embed" || call == "tokenize") out["text"] = "x";
  if (call == "detokenize") out["tokens"] = Json::array({1});
  if (call == "cancel") out["target"] = "r0";
  if (call == "load") out["path"] = "/m";
  if (call == "unload" || call == "revoke" || call == "bias" || call == "enable" ||
      call == "disable")
    out["name"] = "legal";
  if (call == "bias") out["value"] = 0.5;
  if (call == "plan" || call == "apply") out["composition"] = Json::object();
  return out;
}

Json conversation_to_tokenize() {
  Json out = minimal("chat");
  out["call"] = "tokenize";
  return out;
}

const std::vector<std::string> kCalls = {
    "generate", "chat",    "score", "embed",  "tokenize", "detokenize", "cancel",  "info",
    "health",   "modules", "load",  "unload", "revoke",   "plan",       "apply",   "rollback",
    "epochs",   "routing", "bias",  "enable", "disable",  "canary",     "promote", "abort",
    "requests", "stats",   "audit", "usage",  "drain",    "shutdown"};

std::optional<Error> problem(const std::string& text, Endpoint endpoint) {
  std::string id;
  auto decoded = decode_request(text, endpoint, &id);
  if (auto* error = std::get_if<Error>(&decoded)) return *error;
  return std::nullopt;
}
std::optional<Error> problem(const Json& request) {
  return problem(write_json(request), socket_of(request.value("call", "generate")));
}
bool accepts(Json request, const std::string& field, const Json& value) {
  request[field] = value;
  return !problem(request);
}

TEST(Protocol, MinimalRequestOfEveryCallDecodes) {
  for (const auto& call : kCalls) {
    const auto error = problem(minimal(call));
    EXPECT_FALSE(error) << call << ": " << error->message;
  }
}

TEST(Protocol, NamesAndEndpointsMatchTheCalls) {
  for (const auto& call : kCalls) {
    std::string id;
    auto decoded = decode_request(write_json(minimal(call)), socket_of(call), &id);
    ASSERT_TRUE(std::holds_alternative<Request>(decoded)) << call;
    EXPECT_EQ(call_name(std::get<Request>(decoded).call), call);
    EXPECT_EQ(endpoint_of(std::get<Request>(decoded).call), socket_of(call));
    EXPECT_EQ(id, "r1");
  }
}

TEST(Protocol, EncodeThenDecodeIsTheIdentityForEveryCall) {
  for (const auto& call : kCalls) {
    std::string id;
    auto decoded = decode_request(write_json(minimal(call)), socket_of(call), &id);
    const std::string once = encode_request(std::get<Request>(decoded));
    auto again = decode_request(once, socket_of(call), &id);
    ASSERT_TRUE(std::holds_alternative<Request>(again)) << once;
    EXPECT_EQ(encode_request(std::get<Request>(again)), once);
  }
}

TEST(Protocol, EveryFieldOfGenerateArrives) {
  const Json request = {{"id", "a-1"},
                        {"call", "generate"},
                        {"tokens", Json::array({0, 5, 2147483647})},
                        {"max_tokens", 7},
                        {"temperature", 0},
                        {"top_p", 0.9},
                        {"top_k", 40},
                        {"min_p", 0.05},
                        {"repetition_penalty", 1.1},
                        {"frequency_penalty", -0.5},
                        {"presence_penalty", 1.5},
                        {"logit_bias", {{"0", -100}, {"50256", 2.5}}},
                        {"top_logprobs", 3},
                        {"seed", 9223372036854775807},
                        {"stop", Json::array({"\n\n", "END"})},
                        {"ignore_eos", true},
                        {"skip_special", false},
                        {"logprobs", true},
                        {"shares", true},
                        {"stream", false},
                        {"deadline_ms", 1500},
                        {"modules",
                         {{"only", Json::array({"legal"})},
                          {"exclude", Json::array({"bio"})},
                          {"adapters", Json::array({"style"})},
                          {"bias", {{"legal", -0.5}}}}}};
  std::string id;
  auto decoded = decode_request(write_json(request), Endpoint::kServe, &id);
  ASSERT_TRUE(std::holds_alternative<Request>(decoded)) << std::get<Error>(decoded).message;
  const auto& call = std::get<Generate>(std::get<Request>(decoded).call);
  EXPECT_EQ(std::get<std::vector<int32_t>>(call.prompt), (std::vector<int32_t>{0, 5, 2147483647}));
  EXPECT_EQ(call.max_tokens, 7);
  EXPECT_EQ(call.temperature, 0.0);
  EXPECT_EQ(call.top_p, 0.9);
  EXPECT_EQ(call.top_k, 40);
  EXPECT_EQ(call.min_p, 0.05);
  EXPECT_EQ(call.repetition_penalty, 1.1);
  EXPECT_EQ(call.frequency_penalty, -0.5);
  EXPECT_EQ(call.presence_penalty, 1.5);
  EXPECT_EQ(call.logit_bias, (std::map<int32_t, double>{{0, -100.0}, {50256, 2.5}}));
  EXPECT_EQ(call.top_logprobs, 3);
  EXPECT_EQ(call.seed, 9223372036854775807u);
  EXPECT_EQ(call.stop, (std::vector<std::string>{"\n\n", "END"}));
  EXPECT_TRUE(call.ignore_eos && !call.skip_special && call.logprobs && call.shares);
  EXPECT_FALSE(call.stream);
  EXPECT_EQ(call.deadline_ms, 1500);
  EXPECT_EQ(call.modules.only, std::vector<std::string>{"legal"});
  EXPECT_EQ(call.modules.exclude, std::vector<std::string>{"bio"});
  EXPECT_EQ(call.modules.bias.at("legal"), -0.5);
  EXPECT_EQ(call.modules.adapters, std::vector<std::string>{"style"});
}

TEST(Protocol, AnEmptyOnlyListIsNotTheSameAsNone) {
  Json request = minimal("generate");
  request["modules"] = {{"only", Json::array()}};
  std::string id;
  auto decoded = decode_request(write_json(request), Endpoint::kServe, &id);
  const auto& filter = std::get<Generate>(std::get<Request>(decoded).call).modules;
  ASSERT_TRUE(filter.only.has_value());
  EXPECT_TRUE(filter.only->empty());
}

struct IntCase {
  const char* call;
  IntRange range;
};
class IntegerField : public testing::TestWithParam<IntCase> {};

TEST_P(IntegerField, TakesItsRangeAndNothingElse) {
  const auto& [call, range] = GetParam();
  const Json request = minimal(call);
  const std::string field(range.name);
  EXPECT_TRUE(accepts(request, field, range.min));
  EXPECT_TRUE(accepts(request, field, range.max));
  EXPECT_FALSE(accepts(request, field, range.min - 1));
  EXPECT_FALSE(accepts(request, field, static_cast<uint64_t>(range.max) + 1));
  EXPECT_FALSE(accepts(request, field, std::numeric_limits<uint64_t>::max()));
  EXPECT_FALSE(accepts(request, field, static_cast<double>(range.min + 1)));
  for (const Json& wrong : {Json("1"), Json(true), Json(nullptr), Json::array({1})}) {
    EXPECT_FALSE(accepts(request, field, wrong)) << field << " = " << wrong;
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllRanges, IntegerField,
    testing::Values(IntCase{"generate", range::max_tokens}, IntCase{"generate", range::top_k},
                    IntCase{"generate", range::seed}, IntCase{"generate", range::deadline_ms},
                    IntCase{"generate", range::top_logprobs}, IntCase{"chat", range::max_tokens},
                    IntCase{"score", range::deadline_ms}, IntCase{"rollback", range::epoch},
                    IntCase{"routing", range::layer}, IntCase{"drain", range::timeout_ms}));

struct RealCase {
  const char* call;
  RealRange range;
};
class RealField : public testing::TestWithParam<RealCase> {};

TEST_P(RealField, TakesItsRangeAndNothingElse) {
  const auto& [call, range] = GetParam();
  const Json request = minimal(call);
  const std::string field(range.name);
  EXPECT_EQ(accepts(request, field, range.min), !range.min_open);
  EXPECT_TRUE(accepts(request, field, std::nextafter(range.min, range.max)));
  EXPECT_TRUE(accepts(request, field, range.max));
  EXPECT_FALSE(accepts(request, field, std::nextafter(range.min, -1e9)));
  EXPECT_FALSE(accepts(request, field, std::nextafter(range.max, 1e9)));
  for (const Json& wrong : {Json("1"), Json(true), Json(nullptr), Json::array({1})}) {
    EXPECT_FALSE(accepts(request, field, wrong)) << field << " = " << wrong;
  }
}

INSTANTIATE_TEST_SUITE_P(AllRanges, RealField,
                         testing::Values(RealCase{"generate", range::temperature},
                                         RealCase{"generate", range::top_p},
                                         RealCase{"generate", range::min_p},
                                         RealCase{"generate", range::repetition_penalty},
                                         RealCase{"generate", range::frequency_penalty},
                                         RealCase{"chat", range::presence_penalty},
                                         RealCase{"load", range::bias},
                                         RealCase{"bias", range::value}));

struct TextCase {
  const char* call;
  TextRange range;
  bool control_allowed;
};
class TextField : public testing::TestWithParam<TextCase> {};

TEST_P(TextField, TakesItsLengthsAndNothingElse) {
  const auto& [call, range, control_allowed] = GetParam();
  const Json request = minimal(call);
  const std::string field(range.name);
  EXPECT_TRUE(accepts(request, field, std::string(std::max<size_t>(range.min, 1), 'x')));
  EXPECT_EQ(accepts(request, field, ""), range.min == 0);
  if (range.max < range::kTextBytes) {
    EXPECT_TRUE(accepts(request, field, std::string(range.max, 'x')));
    EXPECT_FALSE(accepts(request, field, std::string(range.max + 1, 'x')));
  }
  EXPECT_EQ(accepts(request, field, std::string("a\0b", 3)), control_allowed);
  EXPECT_EQ(accepts(request, field, "a\nb"), control_allowed);
  for (const Json& wrong : {Json(1), Json(true), Json(nullptr), Json::array({"x"})}) {
    EXPECT_FALSE(accepts(request, field, wrong)) << field << " = " << wrong;
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllRanges, TextField,
    testing::Values(TextCase{"info", range::id, false}, TextCase{"cancel", range::target, false},
                    TextCase{"generate", range::prompt, true}, TextCase{"score", range::text, true},
                    TextCase{"tokenize", range::text, true}, TextCase{"load", range::path, false},
                    TextCase{"load", range::name, false}, TextCase{"unload", range::name, false},
                    TextCase{"revoke", range::name, false}, TextCase{"bias", range::name, false}));

TEST(Protocol, ListsAndMapsAreBounded) {
  const Json generate = minimal("generate");
  const Json stops = std::vector<std::string>(16, "s");
  EXPECT_TRUE(accepts(generate, "stop", stops));
  EXPECT_FALSE(accepts(generate, "stop", std::vector<std::string>(17, "s")));
  EXPECT_TRUE(accepts(generate, "stop", Json::array({std::string(256, 's')})));
  EXPECT_FALSE(accepts(generate, "stop", Json::array({std::string(257, 's')})));
  EXPECT_FALSE(accepts(generate, "stop", Json::array({""})));
  EXPECT_FALSE(accepts(generate, "stop", "s"));

  for (const char* list : {"only", "exclude"}) {
    EXPECT_TRUE(accepts(generate, "modules",
                        {{list, std::vector<std::string>(range::kMaxModuleNames, "m")}}));
    EXPECT_FALSE(accepts(generate, "modules",
                         {{list, std::vector<std::string>(range::kMaxModuleNames + 1, "m")}}));
    EXPECT_FALSE(accepts(generate, "modules", {{list, Json::array({std::string(129, 'm')})}}));
  }
  EXPECT_TRUE(accepts(generate, "modules", {{"bias", {{"m", 100}, {"n", -100.0}}}}));
  EXPECT_FALSE(accepts(generate, "modules", {{"bias", {{"m", 100.5}}}}));
  EXPECT_FALSE(accepts(generate, "modules", {{"bias", {{"m", -100.5}}}}));
  EXPECT_FALSE(accepts(generate, "modules", {{"bias", {{"", 1}}}}));
  EXPECT_FALSE(accepts(generate, "modules", Json::array()));
  EXPECT_FALSE(accepts(generate, "modules", {{"omit", Json::array()}}));
}

TEST(Protocol, LogitBiasesAreKeyedByTokenIds) {
  const Json generate = minimal("generate");
  const auto biases = [&](const char* text) {
    return accepts(generate, "logit_bias", json_of(text));
  };
  EXPECT_TRUE(biases(R"({})"));
  EXPECT_TRUE(biases(R"({"0": 100, "2147483647": -100.0})"));
  for (const char* key : {"", "-1", "+1", "01", "00", "1.0", " 1", "1 ", "x", "2147483648"}) {
    EXPECT_FALSE(accepts(generate, "logit_bias", Json{{key, 1}})) << key;
  }
  EXPECT_FALSE(biases(R"({"1": 100.5})"));
  EXPECT_FALSE(biases(R"({"1": -101})"));
  EXPECT_FALSE(biases(R"({"1": "2"})"));
  EXPECT_FALSE(biases(R"([1])"));
  Json most = Json::object();
  for (int i = 0; i < 1024; ++i) most[std::to_string(i)] = 1;
  EXPECT_TRUE(accepts(generate, "logit_bias", most));
  most["1024"] = 1;
  EXPECT_FALSE(accepts(generate, "logit_bias", most));
}

TEST(Protocol, AConstraintIsOneOfItsKinds) {
  const Json generate = minimal("generate");
  const auto constraint = [&](const char* text) {
    return accepts(generate, "constraint", json_of(text));
  };
  EXPECT_TRUE(constraint(R"({"json_object": true})"));
  EXPECT_TRUE(constraint(R"({"regex": ""})"));
  EXPECT_TRUE(constraint(R"({"json_schema": {"what": "the compiler says"}})"));
  EXPECT_TRUE(constraint(R"({"json_schema": false})"));
  EXPECT_TRUE(constraint(R"({"parts": [{"what": "the compiler says"}]})"));
  EXPECT_FALSE(constraint(R"({"parts": {}})"));
  EXPECT_FALSE(constraint(R"({"parts": [], "regex": "a"})"));
  EXPECT_TRUE(accepts(minimal("chat"), "constraint", {{"regex", "a+"}}));
  EXPECT_FALSE(constraint(R"({})"));
  EXPECT_FALSE(constraint(R"({"json_object": false})"));
  EXPECT_FALSE(constraint(R"({"json_object": true, "regex": "a"})"));
  EXPECT_FALSE(constraint(R"({"json_schema": "{}"})"));
  EXPECT_FALSE(constraint(R"({"regex": 5})"));
  EXPECT_FALSE(constraint(R"({"grammar": "x"})"));
  EXPECT_FALSE(accepts(generate, "constraint", "json_object"));
  // The keys of a schema keep their order: it is that of the answer's members.
  Json request = generate;
  request["constraint"] = json_of(R"({"json_schema": {"properties": {"z": {}, "a": {}}}})");
  std::string id;
  const auto decoded = decode_request(write_json(request), Endpoint::kServe, &id);
  const auto& call = std::get<Generate>(std::get<Request>(decoded).call);
  EXPECT_EQ(call.constraint->text, R"({"properties":{"z":{},"a":{}}})");
  EXPECT_EQ(
      encode_request(std::get<Request>(decoded)).find(R"({"z":{},"a":{}})") != std::string::npos,
      true);
}

TEST(Protocol, TokensAreBoundedInNumberAndRange) {
  Json request = {{"id", "a"}, {"call", "score"}};
  EXPECT_TRUE(accepts(request, "tokens", Json::array({0, 2147483647})));
  EXPECT_FALSE(accepts(request, "tokens", Json::array({-1})));
  EXPECT_FALSE(accepts(request, "tokens", Json::array({2147483648})));
  EXPECT_FALSE(accepts(request, "tokens", Json::array({1.0})));
  EXPECT_FALSE(accepts(request, "tokens", Json::array()));
  EXPECT_TRUE(accepts(request, "tokens", std::vector<int>(kMaxPromptTokens, 1)));
  EXPECT_FALSE(accepts(request, "tokens", std::vector<int>(kMaxPromptTokens + 1, 1)));
  EXPECT_TRUE(accepts(minimal("detokenize"), "tokens", Json::array()));
}

TEST(Protocol, InputIsTextOrTokensButNotBothNorNeither) {
  Json both = minimal("generate");
  both["tokens"] = {1};
  EXPECT_TRUE(problem(both));
  Json neither = minimal("score");
  neither.erase("text");
  EXPECT_TRUE(problem(neither));
}

TEST(Protocol, EmbeddingsArePooledInOneOfTwoWays) {
  const Json embed = minimal("embed");
  EXPECT_TRUE(accepts(embed, "pooling", "mean"));
  EXPECT_TRUE(accepts(embed, "pooling", "last"));
  EXPECT_FALSE(accepts(embed, "pooling", "cls"));
  EXPECT_FALSE(accepts(embed, "pooling", 1));
  EXPECT_FALSE(accepts(embed, "dimensions", 8));
  EXPECT_FALSE(accepts(embed, "receipt", true));
  std::string id;
  const auto read =
      decode_request(R"({"id":"a","call":"embed","tokens":[1],"pooling":"last","normalize":false})",
                     Endpoint::kServe, &id);
  const auto& call = std::get<Embed>(std::get<Request>(read).call);
  EXPECT_TRUE(call.last);
  EXPECT_FALSE(call.normalize);
}

TEST(Protocol, EveryCallMayBelongToATrace) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const std::string& call : kCalls) {
    EXPECT_TRUE(accepts(minimal(call), "traceparent", trace)) << call;
    for (const Json& wrong : {Json(""), Json(1), Json(trace + "-x"), Json("01" + trace.substr(2)),
                              Json(std::string(55, '0')), Json(std::string(55, '\n'))}) {
      EXPECT_FALSE(accepts(minimal(call), "traceparent", wrong)) << call << write_json(wrong);
    }
  }
  const std::string text = encode_request({"a", Health{}, trace});
  std::string id;
  const auto read = decode_request(text, Endpoint::kServe, &id);
  EXPECT_EQ(std::get<Request>(read).traceparent, trace);
  EXPECT_EQ(encode_request({"a", Health{}}).find("traceparent"), std::string::npos);
}

TEST(Protocol, ChatMessagesAreChecked) {
  const Json chat = minimal("chat");
  const auto messages = [&](const char* text) { return accepts(chat, "messages", json_of(text)); };
  EXPECT_FALSE(messages(R"([])"));
  EXPECT_FALSE(messages(R"(["x"])"));
  EXPECT_FALSE(messages(R"([{"content": "x"}])"));
  EXPECT_FALSE(messages(R"([{"role": 5, "content": "x"}])"));
  EXPECT_FALSE(messages(R"([{"role": "a\nb", "content": "x"}])"));
  EXPECT_FALSE(messages(R"([{"role": "user"}])"));
  EXPECT_FALSE(messages(R"([{"role": "user", "content": null}])"));
  EXPECT_FALSE(messages(R"([{"role": "user", "content": 5}])"));
  EXPECT_FALSE(messages(R"([{"role": "user", "content": ["x"]}])"));
  EXPECT_FALSE(messages(R"([{"role": "assistant", "tool_calls": "x"}])"));
  EXPECT_TRUE(messages(R"([{"role": "critic", "content": "x", "name": "y"}])"));
  EXPECT_TRUE(messages(R"([{"role": "user", "content": [{"type": "text", "text": "x"}]}])"));
  EXPECT_TRUE(messages(R"([{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}])"));
  const Json turn = {{"role", "user"}, {"content", "x"}};
  EXPECT_TRUE(accepts(chat, "messages", std::vector<Json>(1024, turn)));
  EXPECT_FALSE(accepts(chat, "messages", std::vector<Json>(1025, turn)));
}

TEST(Protocol, WhatElseATemplateGetsIsChecked) {
  for (const Json& chat : {minimal("chat"), conversation_to_tokenize()}) {
    for (const char* name : {"tools", "documents"}) {
      EXPECT_TRUE(accepts(chat, name, Json::array()));
      EXPECT_TRUE(accepts(chat, name, json_of(R"([{"any": {}}])")));
      EXPECT_FALSE(accepts(chat, name, json_of(R"(["x"])")));
      EXPECT_FALSE(accepts(chat, name, Json::object()));
      EXPECT_FALSE(accepts(chat, name, nullptr));
    }
    EXPECT_TRUE(accepts(chat, "chat_template_kwargs", {{"enable_thinking", false}}));
    EXPECT_FALSE(accepts(chat, "chat_template_kwargs", Json::array()));
    EXPECT_FALSE(accepts(chat, "chat_template_kwargs", {{"messages", "x"}}));
    EXPECT_TRUE(accepts(chat, "add_generation_prompt", false));
    EXPECT_FALSE(accepts(chat, "add_generation_prompt", 1));
  }
  Json both = conversation_to_tokenize();
  both["text"] = "x";
  EXPECT_TRUE(problem(both));
}

TEST(Protocol, TextBecomesControlTokensOnlyOnDemand) {
  const auto matches = [](const Json& request) {
    std::string id;
    const auto decoded = decode_request(write_json(request), Endpoint::kServe, &id);
    return std::get<Tokenize>(std::get<Request>(decoded).call).match_special;
  };
  Json request = minimal("tokenize");
  EXPECT_FALSE(matches(request));
  EXPECT_FALSE(Tokenize{}.match_special);
  request["match_special"] = true;
  EXPECT_TRUE(matches(request));
}

TEST(Protocol, ConversationsKeepTheOrderOfTheirKeys) {
  const std::string messages = R"([{"role": "user", "content": "a, }]\"", "z": 1, "b": [{}, 2]}])";
  const std::string tools = R"([{"z":{"y":1,"a":2},"b":"\u00e9"}])";
  const std::string request = R"({ "tools" :)" + tools + R"( , "id":"r", "m\u0065ssages":)" +
                              messages +
                              R"(,"call":"chat", "chat_template_kwargs": {"b": 1, "a": 2} })";
  std::string id;
  const auto decoded = decode_request(request, Endpoint::kServe, &id);
  ASSERT_TRUE(std::holds_alternative<Request>(decoded)) << std::get<Error>(decoded).message;
  const auto& chat = std::get<Chat>(std::get<Request>(decoded).call);
  EXPECT_EQ(chat.conversation.messages_json, messages);
  EXPECT_EQ(chat.conversation.tools_json, tools);
  EXPECT_EQ(chat.conversation.documents_json, "");
  EXPECT_EQ(chat.conversation.chat_template_kwargs_json, R"({"b": 1, "a": 2})");

  const std::string again = encode_request(std::get<Request>(decoded));
  const auto round = decode_request(again, Endpoint::kServe, &id);
  ASSERT_TRUE(std::holds_alternative<Request>(round)) << std::get<Error>(round).message;
  EXPECT_EQ(std::get<Chat>(std::get<Request>(round).call).conversation.messages_json, messages);
  EXPECT_EQ(std::get<Chat>(std::get<Request>(round).call).conversation.tools_json, tools);

  Conversation broken;
  broken.messages_json = "[{]";
  const auto refused =
      decode_request(encode_request({"r", Chat{broken, {}}}), Endpoint::kServe, &id);
  ASSERT_TRUE(std::holds_alternative<Error>(refused));
  EXPECT_NE(std::get<Error>(refused).message.find("messages"), std::string::npos);
}

TEST(Protocol, UnknownFieldsAreRefusedByNameWithASuggestion) {
  Json request = minimal("generate");
  request["max_token"] = 3;
  const auto error = problem(request);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "invalid_argument");
  EXPECT_NE(error->message.find("\"max_token\""), std::string::npos) << error->message;
  EXPECT_NE(error->message.find("did you mean \"max_tokens\""), std::string::npos);
  for (const auto& call : kCalls) EXPECT_FALSE(accepts(minimal(call), "surprise", 1)) << call;
}

TEST(Protocol, RequiredFieldsAreRequired) {
  for (const auto& call : kCalls) {
    const Json request = minimal(call);
    for (const auto& [field, value] : request.items()) {
      Json without = request;
      without.erase(field);
      EXPECT_TRUE(problem(write_json(without), socket_of(call))) << call << " without " << field;
    }
  }
}

TEST(Protocol, UnknownCallsAndWrongEndpointsSayWhatIsExpected) {
  const auto unknown = problem(R"({"id":"a","call":"genrate"})", Endpoint::kServe);
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->hint, "did you mean \"generate\"?");
  const auto wrong = problem(write_json(minimal("load")), Endpoint::kServe);
  ASSERT_TRUE(wrong);
  EXPECT_EQ(wrong->hint, "send it to the control endpoint");
  for (const auto& call : kCalls) {
    if (call == std::string_view("cancel")) continue;  // of both, with another meaning
    const auto other = socket_of(call) == Endpoint::kServe ? Endpoint::kControl : Endpoint::kServe;
    EXPECT_TRUE(problem(write_json(minimal(call)), other)) << call;
  }
}

TEST(Protocol, TheIdIsReadEvenWhenTheRestIsWrong) {
  std::string id;
  decode_request(R"({"id":"job 7","call":"generate","prompt":"x","top_p":2})", Endpoint::kServe,
                 &id);
  EXPECT_EQ(id, "job 7");
  decode_request(R"({"id":7,"call":"health"})", Endpoint::kServe, &id);
  EXPECT_EQ(id, "");
  decode_request("{", Endpoint::kServe, &id);
  EXPECT_EQ(id, "");
}

TEST(Protocol, MalformedTextIsOneError) {
  const std::vector<std::string> bad = {
      "",
      " ",
      "null",
      "[]",
      "7",
      "\"x\"",
      "{",
      "{}",
      "{\"id\":\"a\"}",
      "{}{}",
      R"({"id":"a","call":"health"} x)",
      R"({"id":"a","id":"a","call":"health"})",
      R"({"id":"a","call":"health",})",
      R"({'id':'a'})",
      "{\"id\":\"\xff\",\"call\":\"health\"}",
      "{\"id\":\"\xc0\xaf\",\"call\":\"health\"}",
      R"({"id":"\ud800","call":"health"})",
      R"({"id":"a","call":"generate","prompt":"x","top_p":NaN})",
      R"({"id":"a","call":"generate","prompt":"x","top_p":1e999})",
      R"({"id":"a","call":"generate","prompt":"x","temperature":Infinity})",
      std::string("{\"id\":\"a\",\0\"call\":\"health\"}", 26),
      std::string(100000, '['),
      std::string(100000, '{'),
      "{\"id\":\"a\",\"call\":\"plan\",\"composition\":" + std::string(31, '[') +
          std::string(31, ']') + "}"};
  for (const auto& text : bad) {
    for (const auto endpoint : {Endpoint::kServe, Endpoint::kControl}) {
      const auto error = problem(text, endpoint);
      ASSERT_TRUE(error) << text.substr(0, 80);
      EXPECT_EQ(error->code, "invalid_argument");
      EXPECT_FALSE(error->message.empty());
      EXPECT_FALSE(error->hint.empty());
    }
  }
}

TEST(Protocol, DepthSizeAndNumberOfValuesAreBounded) {
  const auto nested = [](int depth) {
    Json value = 1;
    for (int i = 0; i < depth; ++i) value = Json{{"a", value}};
    return Json{{"id", "a"}, {"call", "plan"}, {"composition", value}};
  };
  EXPECT_FALSE(problem(nested(kMaxJsonDepth - 1)));
  EXPECT_TRUE(problem(nested(kMaxJsonDepth)));

  std::string many = R"({"id":"a","call":"plan","composition":{"x":[0)";
  for (size_t i = 0; i < kMaxJsonValues; ++i) many += ",0";
  EXPECT_TRUE(problem(many + "]}}", Endpoint::kControl));

  EXPECT_TRUE(problem(std::string(kMaxMessageBytes + 1, ' '), Endpoint::kServe));
}

TEST(Protocol, AWishIsACompositionOrADeployment) {
  for (const std::string call : {"plan", "apply"}) {
    Json request = {{"id", "r1"}, {"call", call}, {"deployment", Json{{"threads", 2}}}};
    ASSERT_TRUE(problem(request)) << "without a directory";
    request["directory"] = "/d";
    EXPECT_FALSE(problem(request));
    std::string id;
    const auto decoded = decode_request(write_json(request), Endpoint::kControl, &id);
    const Call& read = std::get<Request>(decoded).call;
    const Wish& wish = call == "plan" ? std::get<Plan>(read).wish : std::get<Apply>(read).wish;
    EXPECT_EQ(json_of(wish.deployment_json), request["deployment"]);
    EXPECT_EQ(wish.directory, "/d");
    EXPECT_EQ(wish.composition_json, "");
    // And back: what a client encodes is what it was given.
    EXPECT_EQ(json_of(encode_request({"r1", read}))["deployment"], request["deployment"]);
    request["composition"] = Json::object();
    ASSERT_TRUE(problem(request));
    EXPECT_NE(problem(request)->message.find("exactly one"), std::string::npos);
  }
}

TEST(Protocol, CancelOfTheControlEndpointIsAnotherCall) {
  const std::string text = R"({"id":"a","call":"cancel","target":"b"})";
  std::string id;
  const auto serve = decode_request(text, Endpoint::kServe, &id);
  const auto control = decode_request(text, Endpoint::kControl, &id);
  EXPECT_TRUE(std::holds_alternative<Cancel>(std::get<Request>(serve).call));
  EXPECT_TRUE(std::holds_alternative<CancelAny>(std::get<Request>(control).call));
  EXPECT_EQ(encode_request(std::get<Request>(control)), encode_request(std::get<Request>(serve)));
  EXPECT_EQ(endpoint_of(CancelAny{}), Endpoint::kControl);
}

TEST(Protocol, ErrorsDoNotEchoControlBytesNorWholePrompts) {
  Json request = minimal("generate");
  request["max_tokens"] = std::string(5000, 's') + "\x1b[31m";
  const auto error = problem(request);
  ASSERT_TRUE(error);
  EXPECT_LT(error->message.size(), 200u);
  EXPECT_EQ(error->message.find('\x1b'), std::string::npos);
}

TEST(Protocol, ErrorEventHasItsFields) {
  const Json event = json_of(encode_error("r1", {"not_found", "module: x", "load it"}));
  EXPECT_EQ(event, (Json{{"id", "r1"},
                         {"event", "error"},
                         {"code", "not_found"},
                         {"message", "module: x"},
                         {"hint", "load it"}}));
  EXPECT_TRUE(json_of(encode_error("", {"internal", "m", "h"}))["id"].is_null());
}

}  // namespace
}  // namespace chimera::wire
