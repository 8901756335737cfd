#include "clients/wire/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/json/field_value.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "base/trace_parent.h"

namespace chimera::wire {
namespace {

constexpr const char* kHint = "see clients/PROTOCOL.md";

class RequestWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {.text = fmt::format("{}: {} (expected {})", path, found, expected), .hint = kHint};
  }
  Problem missing(const std::string& path, std::string_view key, std::string_view) const override {
    return {.text = path_of(path, key) + ": missing (it is required)", .hint = kHint};
  }
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override {
    const std::string_view guess = nearest(key, known);
    return {.text = fmt::format("{}: unknown field {}{}", path, quote(key),
                                guess.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", guess)),
            .hint = fmt::format("{} takes {}", path, fmt::join(known, ", "))};
  }
  std::string map() const override { return "an object"; }
};

const RequestWording kWording;

bool is_module_key(std::string_view key) {
  return !key.empty() && key.size() <= range::name.max &&
         std::none_of(key.begin(), key.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

/// As JSON writes an integer from 0 on: one spelling for each id.
std::optional<int32_t> token_key(std::string_view key) {
  int32_t id = 0;
  const char* const end = key.data() + key.size();
  const auto [rest, problem] = std::from_chars(key.data(), end, id);
  const bool plain = key == "0" || (!key.empty() && key.front() >= '1' && key.front() <= '9');
  if (problem != std::errc() || rest != end || !plain) return std::nullopt;
  return id;
}

}  // namespace

std::optional<Error> RequestProblems::error() const {
  const Status problems = status();
  if (problems.ok()) return std::nullopt;
  return Error{std::string(code_name(problems.code())), problems.message(), problems.hint()};
}

Fields::Fields(const Json& object, std::string where, RequestProblems& problems)
    : object_(object),
      problems_(problems),
      reader_(field_value(object), std::move(where), kWording, problems) {}

void Fields::fail(std::string message) {
  reader_.fail({.text = std::move(message), .hint = kHint});
}

void Fields::text(const TextRange& range, std::string& out, Presence presence) {
  reader_.text(range, out, presence, FieldReader::kAnyControls);
}

void Fields::text(const TextRange& range, std::optional<std::string>& out) {
  std::string found;
  if (reader_.text(range, found, kOptional, FieldReader::kAnyControls)) out = std::move(found);
}

void Fields::label(const TextRange& range, std::string& out, Presence presence) {
  reader_.text(range, out, presence, FieldReader::kNoControls);
}

void Fields::label(const TextRange& range, std::optional<std::string>& out) {
  std::string found;
  if (reader_.text(range, found, kOptional, FieldReader::kNoControls)) out = std::move(found);
}

const Json* Fields::array(std::string_view name, Presence presence) {
  return reader_.list(name, "an array", presence) ? object_.find(name) : nullptr;
}

const Json* Fields::object(std::string_view name, Presence presence) {
  return reader_.map(name, presence) ? object_.find(name) : nullptr;
}

void Fields::trace(std::string& out) {
  std::optional<std::string> given;
  label(range::traceparent, given);
  if (!given) return;
  const auto read = TraceParent::parse(*given);
  if (!read || read->text() != *given) {
    return fail(fmt::format("{}: {} (expected that of W3C Trace Context, version 00)",
                            range::traceparent.name, quote(*given)));
  }
  out = std::move(*given);
}

void Fields::tokens(std::vector<int32_t>& out, size_t min_count, Presence presence) {
  const Json* values = array(range::token.name, presence);
  if (values == nullptr) return;
  if (values->size() < min_count || values->size() > kMaxPromptTokens) {
    return reader_.bad(range::token.name, field_value(*values),
                       fmt::format("{} to {} token ids", min_count, kMaxPromptTokens));
  }
  out.reserve(values->size());
  for (const Json& value : *values) {
    int64_t id = 0;
    if (!reader_.read(field_value(value), range::token.name, range::token, id)) return;
    out.push_back(static_cast<int32_t>(id));
  }
}

void Fields::list(const TextRange& range, std::string_view name, size_t max_count,
                  std::vector<std::string>& out) {
  const Json* values = array(name);
  if (values == nullptr) return;
  if (values->size() > max_count) {
    return reader_.bad(name, field_value(*values), fmt::format("at most {} strings", max_count));
  }
  for (const Json& value : *values) {
    std::string item;
    if (reader_.read(field_value(value), name, range, FieldReader::kAnyControls, item)) {
      out.push_back(std::move(item));
    }
  }
}

void Fields::map(const RealRange& range, std::map<std::string, double>& out) {
  const Json* values = object(range.name);
  if (values == nullptr) return;
  if (values->size() > range::kMaxModuleNames) {
    return reader_.bad(range.name, field_value(*values),
                       fmt::format("at most {} names", range::kMaxModuleNames));
  }
  for (const auto& [key, value] : values->items()) {
    if (!is_module_key(key)) {
      fail(fmt::format("{}: key {} (expected the name of a module)", reader_.path_of(range.name),
                       quote(key)));
      continue;
    }
    double number = 0;
    if (reader_.read(field_value(value), fmt::format("{}.{}", range.name, key), range, number)) {
      out.emplace(key, number);
    }
  }
}

void Fields::weights(const RealRange& range, size_t max_count, std::map<std::string, double>& out) {
  const Json* values = object(range.name, kRequired);
  if (values == nullptr) return;
  if (values->empty() || values->size() > max_count) {
    return reader_.bad(range.name, field_value(*values), fmt::format("1 to {} names", max_count));
  }
  for (const auto& [key, value] : values->items()) {
    if (!is_module_key(key)) {
      fail(fmt::format("{}: key {} (expected a name)", reader_.path_of(range.name), quote(key)));
      continue;
    }
    double number = 0;
    if (reader_.read(field_value(value), fmt::format("{}.{}", range.name, key), range, number)) {
      out.emplace(key, number);
    }
  }
}

void Fields::map(const RealRange& range, size_t max_count, std::map<int32_t, double>& out) {
  const Json* values = object(range.name);
  if (values == nullptr) return;
  if (values->size() > max_count) {
    return reader_.bad(range.name, field_value(*values),
                       fmt::format("at most {} tokens", max_count));
  }
  for (const auto& [key, value] : values->items()) {
    const std::optional<int32_t> id = token_key(key);
    if (!id) {
      fail(fmt::format("{}: key {} (expected a token id, in decimal)", reader_.path_of(range.name),
                       quote(key)));
      continue;
    }
    double number = 0;
    if (reader_.read(field_value(value), fmt::format("{}.{}", range.name, key), range, number)) {
      out.emplace(*id, number);
    }
  }
}

std::optional<size_t> Fields::choice(std::string_view name,
                                     std::initializer_list<const char*> choices) {
  const std::optional<FieldValue> value = reader_.find(name);
  if (!value) return std::nullopt;
  const std::optional<std::string_view> text = value->text();
  size_t index = 0;
  for (const char* spelling : choices) {
    if (text == spelling) return index;
    ++index;
  }
  reader_.bad(name, *value, fmt::format("one of {}", fmt::join(choices, ", ")));
  return std::nullopt;
}

}  // namespace chimera::wire
