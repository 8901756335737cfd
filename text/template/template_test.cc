// The interpreter on its own: marks of client text, bounds, errors. What templates print is
// compared with Jinja2 in tests/system/test_jinja.py.
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "text/template/builtins/json.h"
#include "text/template/template.h"

namespace chimera::jinja {
namespace {

Result<Rendered> render(const std::string& source, const std::string& variables = "{}",
                        Origin origin = Origin::kClient) {
  const auto parsed = Template::parse(source);
  if (!parsed.ok()) return parsed.status();
  const auto values = parse_json(variables, origin);
  if (!values.ok()) return values.status();
  return (*parsed)->render(*values->dict(), std::tm{});
}

std::string text(const std::string& source, const std::string& variables = "{}") {
  const auto rendered = render(source, variables);
  return rendered.ok() ? rendered->text : rendered.status().to_string();
}

/// The result with what came from the client in «».
std::string marked(const std::string& source, const std::string& variables) {
  const auto rendered = render(source, variables);
  if (!rendered.ok()) return rendered.status().to_string();
  std::string out;
  size_t at = 0;
  for (const TextSpan& span : rendered->client_text) {
    out += rendered->text.substr(at, span.begin - at) + "«" +
           rendered->text.substr(span.begin, span.end - span.begin) + "»";
    at = span.end;
  }
  return out + rendered->text.substr(at);
}

TEST(JinjaMarks, FollowClientTextThroughEveryOperation) {
  const std::string data =
      R"({"u": " User<x> ", "l": ["a", "b"], "d": {"k": "v"}, "role": "user"})";
  EXPECT_EQ(marked("[{{ u }}]", data), "[« User<x> »]");
  EXPECT_EQ(marked("{{ '<' + u.strip() + '>' }}", data), "<«User<x>»>");
  EXPECT_EQ(marked("{{ u|trim|upper }}!", data), "«USER<X>»!");
  EXPECT_EQ(marked("{{ u|replace('User', 'Model')|trim }}", data), "Model«<x>»");
  EXPECT_EQ(marked("{{ 'T-U'|replace('U', u|trim) }}", data), "T-«User<x>»");
  EXPECT_EQ(marked("{{ l|join('|') }}", data), "«a»|«b»");
  EXPECT_EQ(marked("{{ '%s=%d'|format(u[1:3], 5) }}", data), "«Us»=5");
  EXPECT_EQ(marked("{{ '{}:{}'.format('t', u[1]) }}", data), "t:«U»");
  EXPECT_EQ(marked("{{ u.split('<')[1] }}{{ u[::-1] }}", data), "«x>  >x<resU »");
  EXPECT_EQ(marked("{{ d|tojson }}", data), "{\"k\": \"«v»\"}");
  EXPECT_EQ(marked("{{ l }}", data), "['«a»', '«b»']");
  EXPECT_EQ(marked("{% set x %}a{{ u|trim }}b{% endset %}{{ x }}", data), "a«User<x>»b");
  EXPECT_EQ(marked("{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(l[0]) }}", data), "<«a»>");
  EXPECT_EQ(marked("{{ u|e }}", data), "« User&lt;x&gt; »");
  EXPECT_EQ(marked("{{ u|indent(2, true)|truncate(5, true) }}", data), "  ...");
}

TEST(JinjaMarks, PlainRolesBelongToTheTemplate) {
  EXPECT_EQ(marked("<|{{ m.role }}|>{{ m.content }}", R"({"m": {"role": "user", "content": "c"}})"),
            "<|user|>«c»");
  EXPECT_EQ(marked("<|{{ m.role }}|>", R"({"m": {"role": "user|><|x", "content": "c"}})"),
            "<|«user|><|x»|>");
}

TEST(JinjaMarks, TrustedValuesHaveNone) {
  const auto rendered = render("{{ a }}", R"({"a": "x"})", Origin::kTrusted);
  ASSERT_TRUE(rendered.ok());
  EXPECT_TRUE(rendered->client_text.empty());
}

TEST(JinjaErrors, NameTheLine) {
  const auto at_line = [](const std::string& source, const std::string& line, Code code) {
    const auto rendered = render(source);
    ASSERT_FALSE(rendered.ok()) << source;
    EXPECT_EQ(rendered.status().code(), code) << rendered.status().to_string();
    EXPECT_NE(rendered.status().message().find("line " + line + ":"), std::string::npos)
        << rendered.status().message();
  };
  at_line("a\nb {{ missing.x }}", "2", Code::kInvalidArgument);
  at_line("{% if true %}\n\n{{ 1 + 'a' }}{% endif %}", "3", Code::kInvalidArgument);
  at_line("\n{{ raise_exception('no') }}", "2", Code::kInvalidArgument);
  at_line("{% macro m(a) %}\n{{ a.b.c }}{% endmacro %}\n\n{{ m(1) }}", "2", Code::kInvalidArgument);
  at_line("\n\n{% if %}", "3", Code::kDataCorrupt);
  at_line("{% for x in y %}\n", "1", Code::kDataCorrupt);
  at_line("\n{# open", "2", Code::kDataCorrupt);
  at_line("{{ 'a\n\n' }}{{ ) }}", "3", Code::kDataCorrupt);
  at_line("\n{% include 'x' %}", "2", Code::kUnimplemented);
}

TEST(JinjaErrors, ChangingValuesIsRefused) {
  const auto rendered = render("{{ l.append(1) }}", R"({"l": []})");
  ASSERT_FALSE(rendered.ok());
  EXPECT_EQ(rendered.status().code(), Code::kInvalidArgument);
}

void expect_exhausted(const std::string& source, const std::string& variables = "{}") {
  const auto rendered = render(source, variables);
  ASSERT_FALSE(rendered.ok()) << source;
  EXPECT_EQ(rendered.status().code(), Code::kResourceExhausted) << rendered.status().to_string();
}

TEST(JinjaBounds, WorkMemoryRecursionAndOutput) {
  const std::string loops = "{% for a in range(9999) %}{% for b in range(9999) %}";
  expect_exhausted(loops + "{% endfor %}{% endfor %}");
  expect_exhausted(loops + "0123456789{% endfor %}{% endfor %}");
  expect_exhausted("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  expect_exhausted("{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}");
  expect_exhausted("{{ 'x' * 99999999 }}");
  expect_exhausted("{{ [1] * 999999999 }}");
  expect_exhausted(
      "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}"
      "{% endfor %}");
  expect_exhausted(
      "{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l] %}"
      "{% endfor %}");
  expect_exhausted(
      "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}"
      "{% endfor %}{{ n.l }}");
  expect_exhausted(
      "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}"
      "{% endfor %}{{ n.l == [n.l, 1] }}");
  expect_exhausted(
      "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}"
      "{% endfor %}{{ n.l|tojson }}");
  expect_exhausted(
      "{% set n = namespace(j=1) %}{% for i in range(9999) %}{% set n.j = joiner(n.j) %}"
      "{% endfor %}");
  expect_exhausted(
      "{% set n = namespace(t=(1,)) %}{% for i in range(60) %}{% set n.t = (n.t, n.t) %}"
      "{% endfor %}{{ n.t in {} }}");
  expect_exhausted("{{ 'x'.ljust(99999999) }}");
  expect_exhausted("{{ 'xyz'.replace('', 'x' * 9999999) }}");
}

TEST(JinjaBounds, DeepSourcesAreRefused) {
  const auto repeated = [](const std::string& part, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += part;
    return out;
  };
  for (const std::string& source :
       {"{{ " + repeated("(", 5000), "{{ " + repeated("[", 5000),
        "{{ " + repeated("not ", 9999) + "1 }}", "{{ " + repeated("-", 9999) + "1 }}",
        "{{ " + repeated("1 + ", 9999) + "1 }}",
        repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
        "{{ x" + repeated(".a", 9999) + " }}", "{{ x" + repeated("|e", 9999) + " }}",
        "{{ 1" + repeated(" if 1 else 1", 9999) + " }}", "{{ f" + repeated("(f", 9999)}) {
    EXPECT_FALSE(Template::parse(source).ok()) << source.substr(0, 40);
  }
  EXPECT_FALSE(Template::parse(std::string(kMaxTextBytes, 'x')).ok());
  EXPECT_EQ(text("{{ " + repeated("(", 40) + "1" + repeated(")", 40) + " }}"), "1");
}

TEST(JinjaBounds, NamespacesMayHoldThemselves) {
  const auto rendered = render("{% set n = namespace() %}{% set n.me = n %}{{ n }}{{ n == n }}");
  ASSERT_TRUE(rendered.ok()) << rendered.status().to_string();
  EXPECT_EQ(text("{% set n = namespace() %}{% set n.l = [n] %}{{ n.l[0] == n }}"), "True");
}

TEST(JinjaBounds, AThousandTurnsAreFarFromTheBounds) {
  std::string messages;
  for (int i = 0; i < 1024; ++i) {
    messages += std::string(i == 0 ? "" : ",") + R"({"role": "user", "content": ")" +
                std::string(2000, 'x') + "\"}";
  }
  const auto rendered = render(
      "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 5) %}"
      "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>' }}"
      "{% endif %}{% endfor %}",
      R"({"messages": [)" + messages + "]}");
  ASSERT_TRUE(rendered.ok()) << rendered.status().to_string();
  EXPECT_GT(rendered->text.size(), 1024u * 2000u);
}

TEST(Jinja, TimeIsTheCallers) {
  const auto parsed = Template::parse("{{ strftime_now('%Y-%m-%d %-d %Z%f') }}");
  ASSERT_TRUE(parsed.ok());
  std::tm when{};
  when.tm_year = 125;
  when.tm_mon = 2;
  when.tm_mday = 4;
  const auto rendered = (*parsed)->render(Dict(), when);
  ASSERT_TRUE(rendered.ok());
  EXPECT_EQ(rendered->text, "2025-03-04 4 000000");
}

TEST(Jinja, ATemplateServesManyThreads) {
  const auto parsed = Template::parse("{% for i in range(n) %}{{ i ~ s }}{% endfor %}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      Dict variables;
      variables.set(Value::string("n"), Value(int64_t{1000}));
      variables.set(Value::string("s"), Value::string("x"));
      const auto rendered = (*parsed)->render(variables, std::tm{});
      if (rendered.ok()) results[i] = rendered->text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results[0].size(), 3890u);
  for (const std::string& result : results) EXPECT_EQ(result, results[0]);
}

TEST(JinjaJson, KeepsOrderAndRefusesWhatIsNone) {
  EXPECT_EQ(text("{{ d|tojson }}", R"({"d": {"z": 1, "a": [true, null, 1.0, -0, 1e3]}})"),
            R"({"z": 1, "a": [true, null, 1.0, 0, 1000.0]})");
  EXPECT_FALSE(parse_json("{", Origin::kClient).ok());
  EXPECT_FALSE(parse_json("[1] 2", Origin::kClient).ok());
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']'), Origin::kClient).ok());
}

}  // namespace
}  // namespace chimera::jinja
