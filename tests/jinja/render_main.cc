// Renders templates for the comparison with Jinja2 (tests/system/test_jinja.py).
//
// One JSON object per line in, {"template", "variables"}; one out, {"text"} or {"error"}. Time
// stands still at 2025-03-14 15:09:26.
#include <ctime>
#include <iostream>
#include <string>

#include "base/json/reader.h"
#include "base/json/writer.h"
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

chimera::Result<std::string> render(const chimera::Json& request) {
  using namespace chimera;
  auto variables = jinja::parse_json(request.value("variables", ""), jinja::Origin::kTrusted);
  if (!variables.ok()) return variables.status();
  if (variables->dict() == nullptr) return Status(Code::kInvalidArgument, "variables: no object");
  const auto parsed = jinja::Template::parse(request.value("template", ""));
  if (!parsed.ok()) return parsed.status();
  auto rendered = (*parsed)->render(*variables->dict(), fixed_time());
  if (!rendered.ok()) return rendered.status();
  return std::move(rendered->text);
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto request = chimera::parse_json(line);
    const auto text = request.ok() ? render(*request) : request.status();
    const chimera::Json out = text.ok() ? chimera::Json{{"text", *text}}
                                        : chimera::Json{{"error", text.status().message()}};
    std::cout << chimera::write_json(out) << std::endl;
  }
  return 0;
}
