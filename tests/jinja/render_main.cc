// Renders templates for the comparison with Jinja2 (tests/system/test_jinja.py).
//
// One JSON object per line in, {"template", "variables"}; one out, {"text"} or {"error"}. Time
// stands still at 2025-03-14 15:09:26.
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "text/template/builtins/json.h"
#include "text/template/template.h"

namespace {

std::tm fixed_time() {
  std::tm out{};
  out.tm_year = 125;
  out.tm_mon = 2;
  out.tm_mday = 14;
  out.tm_hour = 15;
  out.tm_min = 9;
  out.tm_sec = 26;
  out.tm_isdst = -1;
  std::mktime(&out);  // fills in the days of week and year
  return out;
}

chimera::Result<std::string> render(const nlohmann::json& request) {
  using namespace chimera;
  auto variables =
      jinja::parse_json(request.at("variables").get<std::string>(), jinja::Origin::kTrusted);
  if (!variables.ok()) return variables.status();
  if (variables->dict() == nullptr) return Status(Code::kInvalidArgument, "variables: no object");
  const auto parsed = jinja::Template::parse(request.at("template").get<std::string>());
  if (!parsed.ok()) return parsed.status();
  auto rendered = (*parsed)->render(*variables->dict(), fixed_time());
  if (!rendered.ok()) return rendered.status();
  return std::move(rendered->text);
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto text = render(nlohmann::json::parse(line));
    nlohmann::json out;
    if (text.ok()) {
      out["text"] = *text;
    } else {
      out["error"] = text.status().message();
    }
    std::cout << out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  return 0;
}
