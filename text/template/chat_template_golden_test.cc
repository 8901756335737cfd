// Every reference output of ../shared/golden/open/chat_templates, equal to the last byte.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iomanip>
#include <sstream>

#include "base/json/testing.h"
#include "base/json/writer.h"
#include "text/template/chat_template.h"

namespace chimera {
namespace {

std::filesystem::path golden_dir() {
  return std::filesystem::path(CHIMERA_SOURCE_DIR) / "../shared/golden/open/chat_templates";
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

/// "2025-03-14T15:09:26"
std::tm parse_time(const std::string& text) {
  std::tm out{};
  std::istringstream in(text);
  in >> std::get_time(&out, "%Y-%m-%dT%H:%M:%S");
  out.tm_isdst = -1;
  std::mktime(&out);
  return out;
}

/// A copy of the object `from` with another value for `key`.
Json with(const Json& from, std::string_view key, const Json& value) {
  Json out = Json::object();
  for (const auto& [name, held] : from.items()) out[name] = name == key ? value : held;
  return out;
}

/// The conversation with the arguments of its calls as strings, as OpenAI's clients keep them;
/// null when there are none.
Json with_string_arguments(const Json& messages) {
  bool any = false;
  Json out = Json::array();
  for (const Json& message : messages) {
    Json calls = Json::array();
    for (const Json& call : message["tool_calls"]) {
      const Json& function = call["function"];
      const bool encoded = function["arguments"].is_object();
      any = any || encoded;
      calls.push_back(
          !encoded ? call
                   : with(call, "function",
                          with(function, "arguments", Json(write_json(function["arguments"])))));
    }
    out.push_back(calls.empty() ? message : with(message, "tool_calls", calls));
  }
  return any ? out : Json();
}

void check_case(const ChatTemplate& chat, const Json& one, const std::tm& now) {
  SCOPED_TRACE(one.value("name", ""));
  const std::string messages = write_json(one["messages"]);
  const std::string tools = one["tools"].is_null() ? "" : write_json(one["tools"]);
  const std::string variables = write_json(one["vars"]);
  ChatTemplate::Request request;
  request.messages = messages;
  request.tools = tools;
  request.variables = variables;
  request.add_generation_prompt = one.value("add_generation_prompt", false);
  request.now = now;
  const auto rendered = chat.render(request);
  if (one.contains("expected")) {
    ASSERT_TRUE(rendered.ok()) << rendered.status().to_string();
    EXPECT_EQ(rendered->text, one.value("expected", ""));
  } else if (one.value("must_fail", true)) {
    ASSERT_FALSE(rendered.ok());
    EXPECT_EQ(rendered.status().code(), Code::kInvalidArgument);
    const auto error = one.value("error", "");
    const std::string told = error.substr(error.find(": ") + 2);
    EXPECT_NE(rendered.status().message().find(told), std::string::npos)
        << rendered.status().message();
  }
}

TEST(ChatTemplateGolden, EveryCase) {
  if (!std::filesystem::exists(golden_dir())) {
    GTEST_SKIP() << "no golden material at " << golden_dir();
  }
  size_t templates = 0, with_strings = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden_dir())) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Json golden = json_of(contents(entry.path()));
    Json config = Json::object();
    for (const char* name : {"bos_token", "eos_token"}) {
      if (!golden[name].is_null()) config[name] = golden[name];
    }
    const std::string source = contents(golden_dir() / golden.value("template", ""));
    const auto chat = ChatTemplate::parse(write_json(config), source, "");
    ASSERT_TRUE(chat.ok()) << chat.status().to_string();
    ASSERT_FALSE(golden["cases"].empty());
    const std::tm now = parse_time(golden.value("strftime_now_fixed_to", ""));
    for (const Json& one : golden["cases"]) {
      check_case(**chat, one, now);
      const Json encoded = with_string_arguments(one["messages"]);
      if (encoded.is_null() || !one.contains("expected")) continue;
      SCOPED_TRACE("arguments as strings");
      check_case(**chat, with(one, "messages", encoded), now);
      ++with_strings;
    }
    ++templates;
  }
  EXPECT_GE(templates, 1u);
  EXPECT_GE(with_strings, 1u);
}

}  // namespace
}  // namespace chimera
