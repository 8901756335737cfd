#include "clients/gateway/dialect/grammar.h"

#include <fmt/format.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "clients/gateway/dialect/marks.h"

namespace chimera::gateway {
namespace {

Json text(std::string_view words) { return {{"text", words}}; }
Json marked(std::string_view words) { return {{"mark", words}}; }
Json regex(std::string_view expression) { return {{"regex", expression}}; }
Json repeat(Json parts) { return {{"repeat", std::move(parts)}}; }
Json one_of(std::initializer_list<Json> alternatives) {
  return {{"one_of", Json::array(alternatives)}};
}
Json without(std::initializer_list<std::string_view> marks) {
  Json list = Json::array();
  for (const std::string_view mark : marks) list.push_back(mark);
  return {{"without", std::move(list)}};
}
Json join(std::initializer_list<Json> lists) {
  Json out = Json::array();
  for (const Json& list : lists) {
    for (const Json& part : list) out.push_back(part);
  }
  return out;
}
Json list(std::initializer_list<Json> parts) { return Json::array(parts); }
const Json& nothing() {
  static const Json empty = Json::array();
  return empty;
}

// Blanks that models put behind reasoning and between calls; more would be a model gone astray.
constexpr std::string_view kBlanks = "[ \\t\\r\\n]{0,4}";

class Grammar {
 public:
  Grammar(const Reading& reading, const CallRules& rules, const Json& content)
      : reading_(reading), rules_(rules), content_(content) {}

  Json answer() const {
    switch (reading_.dialect) {
      case Dialect::kHarmony:
        return harmony();
      case Dialect::kMistral:
        return join({reasoning(mark::kMistralThink, mark::kMistralThinkEnd), mistral()});
      case Dialect::kHermes:
        return join({reasoning(mark::kThink, mark::kThinkEnd), hermes()});
      case Dialect::kLlama:
        return join({reasoning(mark::kThink, mark::kThinkEnd), llama()});
      case Dialect::kDeepSeek:
        return join({reasoning(mark::kThink, mark::kThinkEnd), deepseek()});
      case Dialect::kThink:
      case Dialect::kPlain:
        return join({reasoning(mark::kThink, mark::kThinkEnd),
                     list({content_.is_null() ? without({}) : content_})});
    }
    return nothing();
  }

 private:
  Json reasoning(std::string_view open, std::string_view close) const {
    const Json inside = list({without({close}), marked(close), regex(kBlanks)});
    if (reading_.opened) return inside;
    if (reading_.dialect == Dialect::kPlain) return nothing();
    return list({one_of({nothing(), join({list({marked(open)}), inside})})});
  }

  /// A call of one of the tools, whose arguments stand between what `before` and `after` make of
  /// its name.
  using OfName = std::function<Json(const std::string& name)>;
  Json call(const OfName& before, const Json& after) const {
    Json alternatives = Json::array();
    for (size_t i = 0; i < rules_.tools->size(); ++i) {
      const Json& function = rules_.tools->at(i)["function"];
      const std::string name = function.value("name", "");
      if (!rules_.only.empty() && name != rules_.only) continue;
      const Json arguments =
          rules_.strict[i].empty()
              ? Json{{"json_object", true}}
              : Json{{"json_schema", function["parameters"]}, {"name", rules_.strict[i]}};
      alternatives.push_back(join({before(name), list({arguments}), after}));
    }
    return list({Json{{"one_of", std::move(alternatives)}}});
  }

  /// {"name": "f", "arguments": {…}}. Names have no characters that JSON escapes.
  Json json_call(std::string_view arguments) const {
    return call(
        [&](const std::string& name) {
          return list({text(fmt::format("{{\"name\": \"{}\", \"{}\": ", name, arguments))});
        },
        list({text("}")}));
  }

  /// `one`, and more of them behind `between`.
  Json calls(const Json& one, const Json& between) const {
    if (!rules_.parallel || !rules_.only.empty()) return one;
    return join({one, list({repeat(join({between, one}))})});
  }

  /// Words and then calls, or what else the rules say.
  Json words_or(const Json& calls, const Json& words) const {
    if (!rules_.any()) return list({content_});
    if (rules_.must) return calls;
    if (!content_.is_null()) return list({one_of({list({content_}), calls})});
    return join({list({words}), list({one_of({nothing(), calls})})});
  }

  Json hermes() const {
    if (!rules_.any()) return words_or({}, {});
    const Json one = join({list({marked(mark::kToolCall), text("\n")}), json_call("arguments"),
                           list({text("\n"), marked(mark::kToolCallEnd)})});
    const Json words = without({mark::kToolCall, mark::kThink});
    if (rules_.must || !content_.is_null() || !rules_.parallel) {
      return words_or(calls(one, list({regex(kBlanks)})), words);
    }
    return list({words, repeat(join({one, list({words})}))});
  }

  /// An answer that begins with a brace is a call to whoever reads it.
  Json llama() const {
    if (!rules_.any()) return words_or({}, {});
    const Json bare = calls(json_call("parameters"), list({text("; ")}));
    const Json tagged = join({list({marked(mark::kPythonTag)}), bare});
    const Json either = list({one_of({bare, tagged})});
    if (rules_.must || !content_.is_null()) return words_or(either, {});
    // Neither a brace nor one of the marks.
    const Json first = regex("[ \\t\\r\\n]*([^{ \\t\\r\\n<]|<[^|t]|<t[^h]|<th[^i])");
    const Json words = without({mark::kPythonTag, mark::kThink});
    return list({one_of({join({list({first, words}), list({one_of({nothing(), tagged})})}),
                         list({regex("[ \\t\\r\\n]*")}), either})});
  }

  Json mistral() const {
    if (!rules_.any()) return words_or({}, {});
    const Json listed =
        join({list({regex(" ?"), text("[")}), calls(json_call("arguments"), list({text(", ")})),
              list({text("]")})});
    const Json named = calls(call(
                                 [](const std::string& name) {
                                   return list({text(name), marked(mark::kMistralArgs)});
                                 },
                                 nothing()),
                             list({marked(mark::kMistralCalls)}));
    return words_or(list({marked(mark::kMistralCalls), one_of({listed, named})}),
                    without({mark::kMistralCalls, mark::kMistralThink}));
  }

  Json deepseek() const {
    if (!rules_.any()) return words_or({}, {});
    const Json fenced =
        join({list({text("function"), marked(mark::kDeepSeekSep)}),
              call([](const std::string& name) { return list({text(name + "\n```json\n")}); },
                   list({text("\n```")}))});
    const Json bare = call(
        [](const std::string& name) {
          return list({text(name), marked(mark::kDeepSeekSep)});
        },
        nothing());
    const Json one =
        list({marked(mark::kDeepSeekCall), one_of({fenced, bare}), marked(mark::kDeepSeekCallEnd)});
    const Json all = join({list({marked(mark::kDeepSeekCalls)}), calls(one, list({regex("\\n?")})),
                           list({marked(mark::kDeepSeekCallsEnd)})});
    return words_or(all, without({mark::kDeepSeekCalls, mark::kDeepSeekCall,
                                  mark::kDeepSeekCallsEnd, mark::kThink}));
  }

  /// Messages to oneself, and one to the user or to a function, which is the last.
  Json harmony() const {
    const Json words = without({mark::kStart, mark::kChannel, mark::kMessage, mark::kEnd,
                                mark::kReturn, mark::kCall, mark::kConstrain});
    // What stands in commentary to nobody are words before a call.
    const Json words_too = one_of({list({text("analysis")}), list({text("commentary")})});
    const Json own =
        join({list({marked(mark::kChannel)}),
              list({rules_.must || !content_.is_null() ? text("analysis") : words_too}),
              list({marked(mark::kMessage), words, marked(mark::kEnd), marked(mark::kStart),
                    text("assistant")})});
    const Json json = list({text(" "), marked(mark::kConstrain), text("json")});
    const Json final = list({marked(mark::kChannel), text("final"), one_of({nothing(), json}),
                             marked(mark::kMessage), content_.is_null() ? words : content_});
    if (!rules_.any()) return list({repeat(own), one_of({final})});
    const Json to_function = call(
        [&](const std::string& name) {
          return join({list({marked(mark::kChannel), text("commentary to=functions." + name)}),
                       json, list({marked(mark::kMessage)})});
        },
        nothing());
    if (rules_.must) return join({list({repeat(own)}), to_function});
    return list({repeat(own), one_of({final, to_function})});
  }

  const Reading& reading_;
  const CallRules& rules_;
  const Json& content_;
};

}  // namespace

Json answer_parts(const Reading& reading, const CallRules& rules, const Json& content) {
  return Grammar(reading, rules, content).answer();
}

}  // namespace chimera::gateway
