// Functions every template has.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/builtins/operators.h"
#include "text/template/evaluator.h"

namespace chimera::jinja {
namespace {

Value range(Runtime& run, const CallArgs& args) {
  const Bound bound(run, "range", args, {"start", "stop", "step"}, 1);
  const int64_t start = bound.has(1) ? bound.integer(0, 0) : 0;
  const int64_t stop = bound.integer(bound.has(1) ? 1 : 0, 0);
  const int64_t step = bound.integer(2, 1);
  if (!run.ok()) return {};
  if (step == 0) return run.fail("range: the step is 0");
  const int64_t count = range_length(start, stop, step);
  if (count > kMaxRange) {
    return run.fail(fmt::format("range: {} items (expected at most {})", count, kMaxRange));
  }
  if (!run.step(static_cast<size_t>(count))) return {};
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) items.emplace_back(start + i * step);
  auto made = make_sequence(Sequence::Form::kRange, std::move(items));
  made->start = start;
  made->stop = stop;
  made->step = step;
  run.allocate(static_cast<size_t>(count) * sizeof(Value));
  return Value(std::shared_ptr<const Sequence>(std::move(made)));
}

/// dict(…) and namespace(…): a mapping or pairs, then named arguments.
std::shared_ptr<Dict> collect(Runtime& run, std::string_view function, const CallArgs& args) {
  auto out = std::make_shared<Dict>();
  if (args.positional.size() > 1) {
    run.fail(
        fmt::format("{}: {} arguments (expected at most 1)", function, args.positional.size()));
    return out;
  }
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (const Dict* dict = from.dict()) {
      for (const auto& [key, value] : dict->items) run.set(*out, key, value);
    } else {
      for (const Value& entry : run.items(from, function)) {
        const std::vector<Value> pair = run.items(entry, function);
        if (pair.size() != 2) {
          run.fail(fmt::format("{}: an entry is no pair", function));
          return out;
        }
        run.set(*out, pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) run.set(*out, Value::string(name), value);
  return out;
}

Value dict(Runtime& run, const CallArgs& args) { return run.dict(collect(run, "dict", args)); }

Value name_space(Runtime& run, const CallArgs& args) {
  const auto attributes = collect(run, "namespace", args);
  Namespace* space = run.name_space();
  for (const auto& [key, value] : attributes->items) {
    if (!run.step(space->attributes.size() / 16)) break;
    space->set(run.need_text(key, "namespace").str(), value);
  }
  return Value(space);
}

Value stateful(Runtime& run, Function::Type type, std::string name, Value self) {
  if (nesting(self) >= kMaxNesting) {
    return run.fail(fmt::format("values nested deeper than {}", kMaxNesting),
                    Code::kResourceExhausted);
  }
  auto out = std::make_shared<Function>();
  out->type = type;
  out->name = std::move(name);
  out->self = std::move(self);
  return Value(std::shared_ptr<const Function>(std::move(out)));
}

Value joiner(Runtime& run, const CallArgs& args) {
  const Bound bound(run, "joiner", args, {"sep"});
  return stateful(run, Function::Type::kJoiner, "joiner",
                  bound.has(0) ? bound[0] : Value::string(", "));
}

Value cycler(Runtime& run, const CallArgs& args) {
  if (args.positional.empty() || !args.named.empty()) {
    return run.fail("cycler: nothing to cycle through (expected at least one item)");
  }
  const Value items = run.tuple(args.positional);
  return run.ok() ? stateful(run, Function::Type::kCycler, "cycler", items) : Value();
}

Value raise_exception(Runtime& run, const CallArgs& args) {
  const Bound bound(run, "raise_exception", args, {"message"}, 1);
  return run.ok() ? run.fail(run.text(bound[0]).str()) : Value();
}

Value strftime_now(Runtime& run, const CallArgs& args) {
  const Bound bound(run, "strftime_now", args, {"format"}, 1);
  const std::string& format = bound.text(0).str();
  std::string out;
  for (size_t at = 0; at < format.size() && run.ok();) {
    if (format[at] != '%' || at + 1 == format.size()) {
      out += format[at++];
      continue;
    }
    // A directive may have one of glibc's flags: %-d has no leading zero.
    size_t end = at + 1;
    while (end + 1 < format.size() &&
           std::string_view("-_0^#").find(format[end]) != std::string_view::npos) {
      ++end;
    }
    const std::string directive = format.substr(at, end + 1 - at);
    at = end + 1;
    // The local time has no zone and whole seconds.
    if (directive == "%f") out += "000000";
    if (directive == "%f" || directive == "%z" || directive == "%Z") continue;
    std::array<char, 256> buffer{};
    out.append(buffer.data(),
               std::strftime(buffer.data(), buffer.size(), directive.c_str(), &run.now()));
  }
  return run.string(std::move(out));
}

struct Global {
  std::string_view name;
  Value (*call)(Runtime& run, const CallArgs& args);
};
constexpr std::array<Global, 7> kGlobals = {{{"range", range},
                                             {"dict", dict},
                                             {"namespace", name_space},
                                             {"joiner", joiner},
                                             {"cycler", cycler},
                                             {"raise_exception", raise_exception},
                                             {"strftime_now", strftime_now}}};

const Global* find_global(std::string_view name) {
  const auto it = std::find_if(kGlobals.begin(), kGlobals.end(),
                               [&](const Global& global) { return global.name == name; });
  return it == kGlobals.end() ? nullptr : &*it;
}

}  // namespace

bool has_global(std::string_view name) { return find_global(name) != nullptr; }

Value call_global(Runtime& run, std::string_view name, const CallArgs& args) {
  const Global* global = find_global(name);
  return global == nullptr ? run.fail(fmt::format("no function named '{}'", name))
                           : global->call(run, args);
}

}  // namespace chimera::jinja
