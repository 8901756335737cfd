#include "clients/gateway/openai/embedding.h"

#include <gmock/gmock.h>

namespace chimera::gateway::openai {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::variant<EmbeddingRequest, ApiError> read(const std::string& fields, Headers headers = {}) {
  ModelNames names;
  Alias& alias = names.aliases["lawyer"];
  alias.modules.only = {"legal"};
  alias.defaults = {{"temperature", 0.25}};
  Request request;
  request.body = R"({"model":)" + fields + "}";
  request.headers = std::move(headers);
  return read_embedding_request(request, names);
}

EmbeddingRequest asked(const std::string& fields, Headers headers = {}) {
  auto out = read(fields, std::move(headers));
  if (auto* error = std::get_if<ApiError>(&out)) ADD_FAILURE() << error->text();
  return std::get<EmbeddingRequest>(std::move(out));
}

const wire::Embed& call_of(const EmbeddingRequest& request, size_t index = 0) {
  return std::get<wire::Embed>(request.calls.at(index));
}

std::string refused(const std::string& fields) {
  auto out = read(fields);
  return std::holds_alternative<ApiError>(out) ? std::get<ApiError>(out).text() : "";
}

TEST(Embedding, InputsAreTextsOrTokens) {
  EXPECT_EQ(std::get<std::string>(call_of(asked(R"("demo","input":"a")")).input), "a");
  const auto several = asked(R"("demo","input":["a",[1,2],"b"])");
  ASSERT_EQ(several.calls.size(), 3u);
  EXPECT_EQ(std::get<std::string>(call_of(several, 0).input), "a");
  EXPECT_THAT(std::get<std::vector<int32_t>>(call_of(several, 1).input), ElementsAre(1, 2));
  EXPECT_EQ(std::get<std::string>(call_of(several, 2).input), "b");
  EXPECT_THAT(refused(R"("demo")"), StartsWith("input: missing"));
  EXPECT_THAT(refused(R"("demo","input":["a",""])"), StartsWith("input[1]: empty"));
  EXPECT_THAT(refused(R"("demo","input":["a",5])"), StartsWith("input[1]: 5"));
  EXPECT_THAT(refused(R"("demo","input":[1,-2])"), StartsWith("input: -2"));
  EXPECT_THAT(refused(R"("demo","input":[])"), HasSubstr("input"));
}

TEST(Embedding, ASmallBodyIsNotManyNames) {
  std::string names, inputs;
  for (int i = 0; i < 4096; ++i) names += R"(,"m")";
  for (int i = 0; i < 17; ++i) inputs += R"(,"a")";
  const auto body = [&](int count) {
    return R"("demo","chimera":{"modules":{"exclude":[)" + names.substr(1) + R"(]}},"input":[)" +
           inputs.substr(1, static_cast<size_t>(count) * 4 - 1) + "]";
  };
  EXPECT_EQ(asked(body(16)).calls.size(), 16u);
  EXPECT_THAT(refused(body(17)), StartsWith("input: 17 of them, for a composition of 4096 names"));
}

TEST(Embedding, WhatOnlyChimeraHas) {
  const auto plain = asked(R"("demo","input":"a","encoding_format":null)");
  EXPECT_FALSE(plain.base64 || call_of(plain).last);
  EXPECT_TRUE(call_of(plain).normalize);
  const auto own = asked(R"("lawyer","input":"a","encoding_format":"base64","chimera":)"
                         R"({"pooling":"last","normalize":false,"deadline_ms":7})",
                         {{"chimera-modules-bias", "legal=0.5"}});
  EXPECT_TRUE(own.base64 && call_of(own).last);
  EXPECT_FALSE(call_of(own).normalize);
  EXPECT_EQ(call_of(own).deadline_ms, 7);
  EXPECT_THAT(*call_of(own).modules.only, ElementsAre("legal"));
  EXPECT_EQ(call_of(own).modules.bias.at("legal"), 0.5);
  EXPECT_THAT(refused(R"("demo","input":"a","chimera":{"pooling":"cls"})"),
              StartsWith("chimera.pooling: "));
  EXPECT_THAT(refused(R"("demo","input":"a","chimera":{"shares":true})"),
              HasSubstr("chimera.shares"));
  EXPECT_THAT(refused(R"("demo","input":"a","dimensions":64)"), StartsWith("dimensions: "));
}

TEST(Embedding, AnswersAreInTheOrderOfTheInputs) {
  const auto answer = [](const std::string& format) {
    Job job = job_of(asked(R"("demo","input":["a","b"],"encoding_format":")" + format + "\""));
    for (const size_t choice : {size_t{1}, size_t{0}}) {
      Json done = {{"finish_reason", "embedded"},
                   {"embedding", Json::array({0.5, choice == 0 ? -1.0 : 0.1f})},
                   {"usage", {{"prompt_tokens", 3}}},
                   {"provenance", {{"epoch", 4}, {"composition", "sha256:1"}}}};
      job.answerer->on_done(choice, done);
    }
    return job.answerer->whole();
  };
  EXPECT_THAT(
      answer("float"),
      StartsWith(R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":)"
                 R"([0.5,-1]},{"object":"embedding","index":1,"embedding":[0.5,0.1]}],)"
                 R"("model":"demo","usage":{"prompt_tokens":6,"total_tokens":6},"chimera":)"));
  EXPECT_THAT(answer("base64"), HasSubstr(R"("embedding":"AAAAPwAAgL8="},)"));
}

TEST(Embedding, AnAnswerHasABoundThatIsToldWithTheFirstVector) {
  const auto problem = [](const std::string& format, int inputs, int width) {
    std::string texts;
    for (int i = 0; i < inputs; ++i) texts += R"(,"a")";
    Job job = job_of(asked(R"("demo","input":[)" + texts.substr(1) + R"(],"encoding_format":")" +
                           format + "\""));
    Json vector = Json::array();
    for (int i = 0; i < width; ++i) vector.push_back(0.5);
    job.answerer->on_done(0, {{"embedding", std::move(vector)}});
    const auto found = job.answerer->problem();
    return found ? std::to_string(found->status) + " " + found->message : std::string();
  };
  EXPECT_EQ(problem("base64", 2048, 4096), "");
  EXPECT_EQ(problem("float", 1024, 4096), "");
  EXPECT_EQ(problem("float", 1025, 4096),
            "400 input: 1025 of them, whose vectors have 4096 values each (expected at most 1024)");
  EXPECT_NE(problem("base64", 2048, 8192), "");
}

TEST(Embedding, WhatBeginsAnewCountsOnce) {
  Job job = job_of(asked(R"("demo","input":["a","b"])"));
  const auto done = [&](size_t choice, uint64_t epoch) {
    job.answerer->on_done(choice, {{"embedding", Json::array({0.5})},
                                   {"usage", {{"prompt_tokens", 3}}},
                                   {"provenance", {{"epoch", epoch}, {"composition", "c"}}}});
  };
  done(0, 4);
  job.answerer->begin_anew();
  done(1, 5);
  done(0, 5);
  EXPECT_EQ(job.answerer->tally().prompt_tokens, 6);
  EXPECT_EQ(job.answerer->tally().epoch(), 5u);
}

}  // namespace
}  // namespace chimera::gateway::openai
