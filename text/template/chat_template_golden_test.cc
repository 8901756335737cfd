// Every reference output of ../shared/golden/open/chat_templates, equal to the last byte.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "text/template/chat_template.h"

namespace chimera {
namespace {

using Json = nlohmann::ordered_json;

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

void check_case(const ChatTemplate& chat, const Json& one, const std::tm& now) {
  SCOPED_TRACE(one["name"].get<std::string>());
  const std::string messages = one["messages"].dump();
  const std::string tools = one["tools"].is_null() ? "" : one["tools"].dump();
  const std::string variables = one["vars"].dump();
  ChatTemplate::Request request;
  request.messages = messages;
  request.tools = tools;
  request.variables = variables;
  request.add_generation_prompt = one["add_generation_prompt"].get<bool>();
  request.now = now;
  const auto rendered = chat.render(request);
  if (one.contains("expected")) {
    ASSERT_TRUE(rendered.ok()) << rendered.status().to_string();
    EXPECT_EQ(rendered->text, one["expected"].get<std::string>());
  } else if (one.value("must_fail", true)) {
    ASSERT_FALSE(rendered.ok());
    EXPECT_EQ(rendered.status().code(), Code::kInvalidArgument);
    const auto error = one["error"].get<std::string>();
    const std::string told = error.substr(error.find(": ") + 2);
    EXPECT_NE(rendered.status().message().find(told), std::string::npos)
        << rendered.status().message();
  }
}

TEST(ChatTemplateGolden, EveryCase) {
  if (!std::filesystem::exists(golden_dir())) {
    GTEST_SKIP() << "no golden material at " << golden_dir();
  }
  size_t templates = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden_dir())) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().filename().string());
    const Json golden = Json::parse(contents(entry.path()));
    Json config = Json::object();
    for (const char* name : {"bos_token", "eos_token"}) {
      if (!golden[name].is_null()) config[name] = golden[name];
    }
    const std::string source = contents(golden_dir() / golden["template"].get<std::string>());
    const auto chat = ChatTemplate::parse(config.dump(), source, "");
    ASSERT_TRUE(chat.ok()) << chat.status().to_string();
    ASSERT_FALSE(golden["cases"].empty());
    const std::tm now = parse_time(golden["strftime_now_fixed_to"].get<std::string>());
    for (const Json& one : golden["cases"]) check_case(**chat, one, now);
    ++templates;
  }
  EXPECT_GE(templates, 1u);
}

}  // namespace
}  // namespace chimera
