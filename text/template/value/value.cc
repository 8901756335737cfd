#include "text/template/value/value.h"

#include <algorithm>

namespace chimera::jinja {
namespace {

bool is_view(Sequence::Form form) {
  return form == Sequence::Form::kKeys || form == Sequence::Form::kValues ||
         form == Sequence::Form::kItems;
}

}  // namespace

Value Value::undefined(std::string problem) {
  Value out;
  out.data_ = Undefined{std::make_shared<const std::string>(std::move(problem))};
  return out;
}

std::optional<int64_t> Value::integer() const {
  if (const auto* held = std::get_if<int64_t>(&data_)) return *held;
  if (const auto* held = std::get_if<bool>(&data_)) return *held ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double* held = real()) return *held;
  if (const auto held = integer()) return static_cast<double>(*held);
  return std::nullopt;
}

const Sequence* Value::indexed() const {
  const Sequence* held = sequence();
  if (held == nullptr || held->form == Sequence::Form::kIterator || is_view(held->form)) {
    return nullptr;
  }
  return held;
}

bool Dict::set(Value key, Value value) {
  auto hashed = hash_key(key);
  if (!hashed) return false;
  nesting = std::max({nesting, jinja::nesting(key) + 1, jinja::nesting(value) + 1});
  weight = saturating_add(weight, saturating_add(jinja::weight(key), jinja::weight(value)));
  const auto [at, is_new] = index_.try_emplace(std::move(*hashed), items.size());
  if (is_new) {
    items.emplace_back(std::move(key), std::move(value));
  } else {
    items[at->second].second = std::move(value);
  }
  return true;
}

const Value* Dict::find(const Value& key) const {
  const auto hashed = hash_key(key);
  if (!hashed) return nullptr;
  const auto at = index_.find(*hashed);
  return at == index_.end() ? nullptr : &items[at->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto at = index_.find(std::string("s").append(key));
  return at == index_.end() ? nullptr : &items[at->second].second;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [key, held] : attributes) {
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  attributes.emplace_back(std::string(name), std::move(value));
}

int nesting(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->nesting;
  if (const Dict* dict = value.dict()) return dict->nesting;
  if (const Function* function = value.function()) return nesting(function->self) + 1;
  return 0;
}

size_t saturating_add(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

size_t weight_of_bytes(size_t bytes) { return 1 + bytes / 32; }

size_t weight(const Value& value) {
  if (const Text* text = value.text()) return weight_of_bytes(text->size());
  if (const BigInteger* big = value.big()) return weight_of_bytes(big->digits.size());
  if (const Sequence* sequence = value.sequence()) return sequence->weight;
  if (const Dict* dict = value.dict()) return dict->weight;
  const Namespace* space = value.name_space();
  if (space == nullptr) return 1;
  return saturating_add(1, space->attributes.size());
}

std::shared_ptr<Sequence> make_sequence(Sequence::Form form, std::vector<Value> items) {
  auto out = std::make_shared<Sequence>();
  out->form = form;
  for (const Value& item : items) {
    out->nesting = std::max(out->nesting, nesting(item) + 1);
    out->weight = saturating_add(out->weight, weight(item));
  }
  out->items = std::move(items);
  return out;
}

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const double* real = value.real()) return *real != 0.0;
  if (const auto integer = value.integer()) return *integer != 0;
  if (const Text* text = value.text()) return !text->empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->form == Sequence::Form::kIterator || !sequence->items.empty();
  }
  return true;
}

std::string type_name(const Value& value) {
  static constexpr const char* kForms[] = {"list",        "tuple",      "range",    "dict_keys",
                                           "dict_values", "dict_items", "generator"};
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.boolean() != nullptr) return "bool";
  if (value.real() != nullptr) return "float";
  if (value.integer() || value.big() != nullptr) return "int";
  if (value.text() != nullptr) return "str";
  if (value.dict() != nullptr) return "dict";
  if (const Sequence* sequence = value.sequence()) {
    return kForms[static_cast<size_t>(sequence->form)];
  }
  if (value.name_space() != nullptr) return "Namespace";
  if (value.loop() != nullptr) return "LoopContext";
  return "function";
}

}  // namespace chimera::jinja
