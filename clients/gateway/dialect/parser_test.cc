// Answers in the shapes of each family, cut in every place.
#include "clients/gateway/dialect/parser.h"

#include <gtest/gtest.h>

#include <ostream>

#include "base/json/testing.h"

namespace chimera::gateway {

void PrintTo(const Piece& piece, std::ostream* out) {
  *out << (piece.kind == Piece::Kind::kText        ? "text "
           : piece.kind == Piece::Kind::kReasoning ? "reasoning "
                                                   : "call ")
       << testing::PrintToString(piece.text) << " " << piece.arguments;
}

namespace {

using Pieces = std::vector<Piece>;

Piece words(std::string text) { return {.kind = Piece::Kind::kText, .text = std::move(text)}; }
Piece thought(std::string text) {
  return {.kind = Piece::Kind::kReasoning, .text = std::move(text)};
}
Piece call(std::string name, std::string arguments) {
  return {.kind = Piece::Kind::kCall, .text = std::move(name), .arguments = std::move(arguments)};
}

std::shared_ptr<const Json> tools() {
  return std::make_shared<const Json>(json_of(
      R"([{"type":"function","function":{"name":"weather","parameters":{"type":"object",
          "properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}},
          {"type":"function","function":{"name":"now"}}])"));
}

/// Adjacent words are one piece, however they came.
void add(const Pieces& more, Pieces& out) {
  for (const Piece& piece : more) {
    if (!out.empty() && out.back().kind == piece.kind && piece.kind != Piece::Kind::kCall) {
      out.back().text += piece.text;
    } else {
      out.push_back(piece);
    }
  }
}

Pieces read(const Reading& reading, std::initializer_list<std::string_view> parts,
            std::shared_ptr<const Json> offered) {
  const auto parser = make_parser(reading, std::move(offered));
  Pieces out;
  for (const std::string_view part : parts) add(parser->push(part), out);
  add(parser->finish(), out);
  return out;
}

void expect(const Reading& reading, std::string_view text, const Pieces& expected,
            const std::shared_ptr<const Json>& offered = tools()) {
  SCOPED_TRACE(text);
  EXPECT_EQ(read(reading, {text}, offered), expected);
  for (size_t at = 1; at < text.size(); ++at) {
    ASSERT_EQ(read(reading, {text.substr(0, at), text.substr(at)}, offered), expected)
        << "cut at " << at;
  }
  const auto parser = make_parser(reading, offered);
  Pieces single;
  for (const char c : text) add(parser->push({&c, 1}), single);
  add(parser->finish(), single);
  EXPECT_EQ(single, expected) << "byte by byte";
}

void expect(Dialect dialect, std::string_view text, const Pieces& expected) {
  expect({.dialect = dialect}, text, expected);
}

const std::string kParis = R"({"city":"Paris"})";

TEST(Parser, WordsAreTheTextToTheByte) {
  const std::string text =
      " \n Some < words <, [TOOL], {\"a\": 1} <|x|> — \"über\" <think> </think>\n ";
  for (const Dialect dialect : {Dialect::kPlain, Dialect::kThink, Dialect::kHermes, Dialect::kLlama,
                                Dialect::kMistral, Dialect::kDeepSeek}) {
    SCOPED_TRACE(kDialectNames.name(dialect));
    expect({.dialect = dialect}, text, {words(text)});
    expect({.dialect = dialect}, text, {words(text)}, nullptr);
    expect({.dialect = dialect}, "", {});
    expect({.dialect = dialect}, "  ", {words("  ")});
  }
  expect({.dialect = Dialect::kPlain}, "<think>a</think>b", {words("<think>a</think>b")});
}

TEST(Parser, ReasoningStandsBeforeTheAnswer) {
  for (const Dialect dialect :
       {Dialect::kThink, Dialect::kHermes, Dialect::kLlama, Dialect::kDeepSeek}) {
    expect(dialect, "<think>\nLet me see.\n\nYes.\n</think>\n\nIt is 4. ",
           {thought("Let me see.\n\nYes."), words("It is 4. ")});
    expect(dialect, "\n<think>\n\n</think>\n\nAt once.", {words("At once.")});
    expect(dialect, "<think>cut off </thi", {thought("cut off </thi")});
    expect({.dialect = dialect, .opened = true}, "Hm.\n</think>\nSo.",
           {thought("Hm."), words("So.")});
    expect({.dialect = dialect, .opened = true}, "Hm. ", {thought("Hm.")});
  }
  expect(Dialect::kMistral, "[THINK]Hm.[/THINK]So.", {thought("Hm."), words("So.")});
  expect({.dialect = Dialect::kMistral}, "[THINK]Hm.[/THINK]So.", {thought("Hm."), words("So.")},
         nullptr);
}

TEST(Parser, Hermes) {
  expect(Dialect::kHermes,
         "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
         {call("weather", kParis)});
  expect(Dialect::kHermes,
         "<think>\nParis, then.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", "
         "\"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", "
         "\"arguments\": {}}\n</tool_call>",
         {thought("Paris, then."), words("I look."), call("weather", kParis), call("now", "{}")});
  // Marks and braces within a text of the arguments are text.
  expect(
      Dialect::kHermes,
      R"(<tool_call>{"name":"weather","arguments":{"city":"}</tool_call>\"{"}}</tool_call> done)",
      {call("weather", R"({"city":"}</tool_call>\"{"})"), words("done")});
  // Arguments that are encoded once more, and those that are left out; the mark at the end, too.
  expect(Dialect::kHermes, R"(<tool_call>{"name":"now","arguments":"{\"a\": 1.50}"}</tool_call>)",
         {call("now", R"({"a":1.5})")});
  expect(Dialect::kHermes, R"(<tool_call>{"name":"now"})", {call("now", "{}")});
}

TEST(Parser, QwenCoder) {
  expect(Dialect::kHermes,
         "Let me look.\n\n<tool_call>\n<function=weather>\n<parameter=city>\n2024\n</parameter>\n"
         "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
         {words("Let me look."), call("weather", R"({"city":"2024","days":3})")});
  expect(Dialect::kHermes,
         "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=weather>\n"
         "<parameter=city>\na\n\"b\"\n</parameter>\n</function>\n</tool_call>",
         {call("now", "{}"), call("weather", R"({"city":"a\n\"b\""})")});
  expect(Dialect::kHermes, "<tool_call><function=now>junk</function></tool_call>",
         {words("<tool_call><function=now>junk</function></tool_call>")});
}

TEST(Parser, Llama) {
  expect(Dialect::kLlama, R"({"name": "weather", "parameters": {"city": "Paris"}})",
         {call("weather", kParis)});
  expect(
      Dialect::kLlama,
      R"(<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}; {"name": "now", "parameters": {}})",
      {call("weather", kParis), call("now", "{}")});
  // An object that a user asked for is no call of a tool.
  expect(Dialect::kLlama, R"({"name": "Ada", "parameters": {"born": 1815}} as you wished)",
         {words(R"({"name": "Ada", "parameters": {"born": 1815}} as you wished)")});
  expect(Dialect::kLlama, "{not json", {words("{not json")});
  expect(Dialect::kLlama, R"(<|python_tag|>print("x"))", {words(R"(<|python_tag|>print("x"))")});
  expect({.dialect = Dialect::kLlama}, R"({"name": "now", "parameters": {}})",
         {words(R"({"name": "now", "parameters": {}})")}, nullptr);
}

TEST(Parser, Mistral) {
  expect(
      Dialect::kMistral,
      R"([TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}])",
      {call("weather", kParis), call("now", "{}")});
  expect(Dialect::kMistral,
         R"(Moment. [TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{})",
         {words("Moment."), call("weather", kParis), call("now", "{}")});
  expect(Dialect::kMistral, R"([TOOL_CALLS]weather{"city": "Paris"})", {call("weather", kParis)});
  expect(Dialect::kMistral, R"([TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Paris"})",
         {call("weather", kParis)});
  expect(Dialect::kMistral, "[TOOL_CALLS]no call", {words("[TOOL_CALLS]no call")});
  expect(Dialect::kMistral, R"([TOOL_CALLS][{"name": 7}])",
         {words(R"([TOOL_CALLS][{"name": 7}])")});
}

TEST(Parser, DeepSeek) {
  expect(
      Dialect::kDeepSeek,
      "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
      "{\"city\": "
      "\"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n"
      "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
      {words("I look."), call("weather", kParis), call("now", "{}")});
  expect({.dialect = Dialect::kDeepSeek, .opened = true},
         "Paris.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": "
         "\"Paris\"}"
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         {thought("Paris."), call("weather", kParis)});
  expect(Dialect::kDeepSeek, "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": ",
         {words("<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": ")});
}

TEST(Parser, Harmony) {
  expect(Dialect::kHarmony,
         "<|channel|>analysis<|message|>2 and "
         "2.<|end|><|start|>assistant<|channel|>final<|message|>4. ",
         {thought("2 and 2."), words("4. ")});
  expect(Dialect::kHarmony,
         "<|channel|>analysis<|message|>Paris.<|end|><|start|>assistant<|channel|>commentary "
         "to=functions.weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>",
         {thought("Paris."), call("weather", kParis)});
  expect(Dialect::kHarmony,
         " to=functions.weather<|channel|>commentary json<|message|>{\"city\":\"Paris\"}",
         {call("weather", kParis)});
  expect(Dialect::kHarmony,
         "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
         "<|channel|>commentary to=functions.now<|message|>{}<|call|>",
         {words("I look it up."), call("now", "{}")});
  expect(Dialect::kHarmony, "<|channel|>analysis<|message|>cut", {thought("cut")});
  expect(Dialect::kHarmony, "<|channel|>analysis<|message|>a<|end|><|start|>assistant",
         {thought("a")});
  expect(Dialect::kHarmony, "<|channel|>analysis to=python<|message|>1+1<|call|>",
         {thought("1+1")});
  expect(Dialect::kHarmony, "no channel at all", {words("no channel at all")});
  expect(Dialect::kHarmony, "<|channel|>commentary to=functions.now<|message|>{bad<|call|>",
         {words("<|channel|>commentary to=functions.now<|message|>{bad")});
}

TEST(Parser, WhatIsNoCallStaysText) {
  for (const std::string_view text :
       {"<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Pa",
        "<tool_call>{bad}</tool_call> after", "<tool_call>[1]</tool_call>",
        "<tool_call>words</tool_call>", "<tool_call>{\"name\": 7}</tool_call>", "a <tool_call",
        "<tool_call>"}) {
    expect(Dialect::kHermes, text, {words(std::string(text))});
  }
  // Nobody offered a tool.
  const std::string_view call = R"(<tool_call>{"name":"now","arguments":{}}</tool_call>)";
  expect({.dialect = Dialect::kHermes}, call, {words(std::string(call))}, nullptr);
}

TEST(Parser, PiecesComeAsSoonAsTheyAreCertain) {
  const auto parser = make_parser({.dialect = Dialect::kHermes}, tools());
  EXPECT_EQ(parser->push("<think>a"), Pieces{thought("a")});
  EXPECT_EQ(parser->push(" b</th"), Pieces{thought(" b")});
  EXPECT_EQ(parser->push("ink>c <tool"), Pieces{words("c")});
  EXPECT_EQ(parser->push("s>"), Pieces{words(" <tools>")});
  EXPECT_EQ(parser->push("<tool_call>{\"name\":\"now\",\"arguments\":{}"), Pieces{});
  EXPECT_EQ(parser->push("}"), Pieces{call("now", "{}")});
}

TEST(Dialect, IsSeenInHowACallIsWrittenDown) {
  EXPECT_EQ(dialect_of("x<|im_start|>assistant\n<tool_call>\n{\"name\": \"sample_tool\""),
            Dialect::kHermes);
  EXPECT_EQ(
      dialect_of(
          "assistant<|end_header_id|>\n\n{\"name\": \"sample_tool\", \"parameters\": {\"a\": 1}}"),
      Dialect::kLlama);
  EXPECT_EQ(dialect_of("[TOOL_CALLS] [{\"name\": \"sample_tool\""), Dialect::kMistral);
  EXPECT_EQ(dialect_of("<｜tool▁call▁begin｜>function<｜tool▁sep｜>sample_tool"),
            Dialect::kDeepSeek);
  EXPECT_EQ(dialect_of("<|start|>assistant<|channel|>commentary to=functions.sample_tool"),
            Dialect::kHarmony);
  EXPECT_EQ(dialect_of("user: x\nassistant: \n"), Dialect::kThink);
  // The description of the tool alone says nothing.
  EXPECT_EQ(dialect_of(
                R"({"name": "sample_tool", "description": "x", "parameters": {"type": "object"}})"),
            Dialect::kThink);
  EXPECT_TRUE(opens_reasoning("<|im_start|>assistant\n<think>\n"));
  EXPECT_FALSE(opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_FALSE(opens_reasoning(""));
}

}  // namespace
}  // namespace chimera::gateway
