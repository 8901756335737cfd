// Values compared and found again, as Python does: equal, less, hash_key.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/template/value/number.h"

namespace chimera::jinja {
namespace {

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if (a.form != b.form) return false;
  if (&a == &b) return true;
  if (a.form == Sequence::Form::kIterator || a.form == Sequence::Form::kValues) return false;
  return a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), equal);
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

std::optional<bool> less_sequences(const Sequence& a, const Sequence& b) {
  const bool ordered =
      a.form == b.form && (a.form == Sequence::Form::kList || a.form == Sequence::Form::kTuple);
  if (!ordered) return std::nullopt;
  const size_t common = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!equal(a.items[i], b.items[i])) return less(a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size();
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.text() != nullptr) return a.text()->str() == b.text()->str();
  if (a.sequence() != nullptr) return equal_sequences(*a.sequence(), *b.sequence());
  if (a.dict() != nullptr) return equal_dicts(*a.dict(), *b.dict());
  if (a.function() != nullptr) return a.function() == b.function();
  return a.name_space() == b.name_space() && a.loop() == b.loop();
}

std::optional<bool> less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == -1;
  // UTF-8 sorts by bytes as Python sorts by code points.
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->str() < b.text()->str();
  if (a.sequence() != nullptr && b.sequence() != nullptr) {
    return less_sequences(*a.sequence(), *b.sequence());
  }
  return std::nullopt;
}

std::optional<std::string> hash_key(const Value& key) {
  if (const Text* text = key.text()) return "s" + text->str();
  if (key.is_none()) return "n";
  if (key.is_undefined()) return "u";
  if (const auto digits = big_digits(key)) return "i" + *digits;
  if (const double* real = key.real()) {
    const bool whole = std::floor(*real) == *real && std::isfinite(*real);
    return whole ? "i" + std::to_string(static_cast<int64_t>(*real)) : "f" + float_text(*real);
  }
  const Sequence* tuple = key.sequence();
  if (tuple == nullptr || tuple->form != Sequence::Form::kTuple) return std::nullopt;
  std::string out = "t";
  for (const Value& item : tuple->items) {
    const auto part = hash_key(item);
    if (!part) return std::nullopt;
    out += fmt::format("{}:{}", part->size(), *part);
  }
  return out;
}

}  // namespace chimera::jinja
