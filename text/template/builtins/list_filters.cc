// Filters of lists and dicts.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/builtins/filters.h"
#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

Value list(Runtime& run, const Value& subject, const CallArgs&) {
  return run.list(run.items(subject, "list"));
}

Value count(Runtime& run, const Value& subject, const CallArgs&) {
  return Value(length(run, subject));
}

/// The next item of an iterator without taking the others; nullopt for other values.
std::optional<Value> next_of_iterator(const Value& subject) {
  const Sequence* sequence = subject.sequence();
  if (sequence == nullptr || sequence->form != Sequence::Form::kIterator) return std::nullopt;
  if (sequence->taken == sequence->items.size()) {
    return Value::undefined("No first item, sequence was empty.");
  }
  return sequence->items[sequence->taken++];
}

Value first(Runtime& run, const Value& subject, const CallArgs&) {
  if (auto next = next_of_iterator(subject)) return *next;
  if (const Text* text = subject.text(); text != nullptr && !text->empty()) {
    return run.string(text->slice(0, char_length(text->str()[0])));
  }
  const std::vector<Value> items = run.items(subject, "first");
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Runtime& run, const Value& subject, const CallArgs&) {
  const Sequence* sequence = subject.sequence();
  if (sequence != nullptr && sequence->form == Sequence::Form::kIterator) {
    return run.mismatch("last", subject, "a list");
  }
  const std::vector<Value> items = run.items(subject, "last");
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Runtime& run, const Value& subject, const CallArgs&) {
  if (subject.text() != nullptr) {
    return slice(run, subject, Value(None{}), Value(None{}), Value(int64_t{-1}));
  }
  const Sequence* sequence = subject.sequence();
  if (sequence != nullptr && sequence->form == Sequence::Form::kIterator) {
    return run.mismatch("reverse", subject, "a list or string");
  }
  std::vector<Value> items = run.items(subject, "reverse");
  std::reverse(items.begin(), items.end());
  return run.iterator(std::move(items));
}

Value join_filter(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "join", args, {"d", "attribute"});
  const Text separator = bound.has(0) ? run.text(bound[0]) : Text();
  std::vector<Value> items = run.items(subject, "join");
  if (bound.given(1)) {
    for (Value& item : items) {
      if (run.ok()) item = attribute_path(run, item, bound[1]);
    }
  }
  return join(run, separator, items);
}

Value items_of(Runtime& run, const Value& subject, const CallArgs&) {
  if (subject.is_undefined()) return run.iterator({});
  if (subject.dict() == nullptr) return run.mismatch("items", subject, "a dict");
  return run.iterator(run.items(call_method(run, subject, "items", {}), "items"));
}

/// The key that sort, min, unique and groupby compare by.
struct Key {
  Runtime& run;
  const Value& attribute;  // undefined or none: the item itself
  bool case_sensitive;
  Value fallback = {};  // of groupby: instead of what is missing

  Value one(const Value& item, const Value& path) const {
    const bool whole = path.is_undefined() || path.is_none();
    Value key = whole ? item : attribute_path(run, item, path, fallback);
    if (case_sensitive || key.text() == nullptr) return key;
    return run.string(with_case(*key.text(), Case::kLower));
  }

  Value operator()(const Value& item) const { return one(item, attribute); }

  /// "a,b" compares by a, then by b. A list even for one key: lists look for what differs before
  /// they order, so that equal keys need no order (none, missing attributes, dicts).
  Value several(const Value& item) const {
    const Text* names = attribute.text();
    if (names == nullptr) return run.list({one(item, attribute)});
    std::vector<Value> keys;
    size_t begin = 0;
    while (begin <= names->size() && run.ok()) {
      const size_t end = std::min(names->str().find(',', begin), names->size());
      keys.push_back(one(item, Value(names->slice(begin, end))));
      begin = end + 1;
    }
    return run.list(std::move(keys));
  }
};

struct Keyed {
  Value key, item;
};

/// Stable; descending order keeps equal items in order, as Python's reverse does.
std::vector<Value> sorted_by_key(Runtime& run, std::vector<Keyed> keyed, bool descending) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    return run.ok() && (descending ? run.less(b.key, a.key) : run.less(a.key, b.key));
  });
  std::vector<Value> out;
  out.reserve(keyed.size());
  for (Keyed& entry : keyed) out.push_back(std::move(entry.item));
  return out;
}

Value sort(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "sort", args, {"reverse", "case_sensitive", "attribute"});
  const Key key{run, bound[2], bound.flag(1, false)};
  std::vector<Keyed> keyed;
  for (Value& item : run.items(subject, "sort")) {
    if (run.ok()) keyed.push_back({key.several(item), std::move(item)});
  }
  return run.list(sorted_by_key(run, std::move(keyed), bound.flag(0, false)));
}

Value dict_sort(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.has(1) ? bound.text(1).str() : "key";
  if (by != "key" && by != "value") return run.fail("dictsort: by is neither key nor value");
  if (subject.dict() == nullptr) return run.mismatch("dictsort", subject, "a dict");
  const Value whole;
  const Key key{run, whole, bound.flag(0, false)};
  std::vector<Keyed> keyed;
  for (const auto& [name, value] : subject.dict()->items) {
    if (!run.ok()) break;
    keyed.push_back({key(by == "key" ? name : value), run.tuple({name, value})});
  }
  return run.list(sorted_by_key(run, std::move(keyed), bound.flag(2, false)));
}

Value unique(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "unique", args, {"case_sensitive", "attribute"});
  const Key key{run, bound[1], bound.flag(0, false)};
  Dict seen;
  std::vector<Value> out;
  for (Value& item : run.items(subject, "unique")) {
    if (!run.ok()) break;
    const Value found = key(item);
    if (!run.step(weight(found)) || seen.find(found) != nullptr) continue;
    run.set(seen, found, Value(None{}));
    out.push_back(std::move(item));
  }
  return run.iterator(std::move(out));
}

Value extreme(Runtime& run, const Value& subject, const CallArgs& args, bool largest) {
  const Bound bound(run, largest ? "max" : "min", args, {"case_sensitive", "attribute"});
  const Key key{run, bound[1], bound.flag(0, false)};
  Value best = Value::undefined("No aggregated item, sequence was empty.");
  Value best_key;
  bool any = false;
  for (const Value& item : run.items(subject, largest ? "max" : "min")) {
    if (!run.ok()) break;
    const Value found = key(item);
    if (any && !(largest ? run.less(best_key, found) : run.less(found, best_key))) continue;
    best = item;
    best_key = found;
    any = true;
  }
  return best;
}

Value smallest(Runtime& run, const Value& subject, const CallArgs& args) {
  return extreme(run, subject, args, false);
}

Value largest(Runtime& run, const Value& subject, const CallArgs& args) {
  return extreme(run, subject, args, true);
}

Value sum(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "sum", args, {"attribute", "start"});
  Value total = bound.has(1) ? bound[1] : Value(int64_t{0});
  for (const Value& item : run.items(subject, "sum")) {
    if (!run.ok()) break;
    total =
        binary(run, Op::kAdd, total, bound.given(0) ? attribute_path(run, item, bound[0]) : item);
  }
  return total;
}

/// Arguments behind the first `count`.
CallArgs rest(const CallArgs& args, size_t skipped) {
  CallArgs out = args;
  out.positional.erase(out.positional.begin(),
                       out.positional.begin() + static_cast<std::ptrdiff_t>(skipped));
  return out;
}

Value map(Runtime& run, const Value& subject, const CallArgs& args) {
  std::vector<Value> items = run.items(subject, "map");
  if (args.positional.empty()) {
    const Bound bound(run, "map", args, {"", "attribute", "default"});
    if (!bound.has(1)) return run.fail("map: the name of a filter or an attribute is missing");
    for (Value& item : items) {
      if (!run.ok()) return {};
      item = attribute_path(run, item, bound[1], bound[2]);
    }
    return run.iterator(std::move(items));
  }
  const std::string name = run.need_text(args.positional[0], "map").str();
  const CallArgs others = rest(args, 1);
  for (Value& item : items) {
    if (!run.ok()) return {};
    item = apply_filter(run, name, item, others);
  }
  return run.iterator(std::move(items));
}

/// select, reject and, with an attribute first, selectattr and rejectattr.
Value choose(Runtime& run, const Value& subject, const CallArgs& args, bool keep,
             bool by_attribute) {
  const size_t test_at = by_attribute ? 1 : 0;
  if (args.positional.size() < test_at) return run.fail("selectattr: the attribute is missing");
  const bool has_name = args.positional.size() > test_at;
  const std::string test =
      has_name ? run.need_text(args.positional[test_at], "select").str() : std::string();
  const CallArgs others = has_name ? rest(args, test_at + 1) : CallArgs();
  std::vector<Value> out;
  if (!truth(subject)) return run.iterator({});
  for (Value& item : run.items(subject, "select")) {
    if (!run.step()) return {};
    const Value looked_at = by_attribute ? attribute_path(run, item, args.positional[0]) : item;
    const bool passes = has_name ? apply_test(run, test, looked_at, others) : truth(looked_at);
    if (passes == keep) out.push_back(std::move(item));
  }
  return run.iterator(std::move(out));
}

Value select(Runtime& run, const Value& subject, const CallArgs& args) {
  return choose(run, subject, args, true, false);
}
Value reject(Runtime& run, const Value& subject, const CallArgs& args) {
  return choose(run, subject, args, false, false);
}
Value select_attr(Runtime& run, const Value& subject, const CallArgs& args) {
  return choose(run, subject, args, true, true);
}
Value reject_attr(Runtime& run, const Value& subject, const CallArgs& args) {
  return choose(run, subject, args, false, true);
}

Value batch(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "batch", args, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  const std::vector<Value> items = run.items(subject, "batch");
  if (!run.ok()) return {};
  if (size < 1 || size > kMaxRange) return run.fail("batch: the size is not between 1 and 100000");
  std::vector<Value> out;
  for (size_t at = 0; at < items.size() && run.ok();) {
    const size_t end = std::min(at + static_cast<size_t>(size), items.size());
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(at),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (bound.given(1)) part.resize(static_cast<size_t>(size), bound[1]);
    out.push_back(run.list(std::move(part)));
    at = end;
  }
  return run.iterator(std::move(out));
}

Value slices(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "slice", args, {"slices", "fill_with"}, 1);
  const int64_t parts = bound.integer(0, 1);
  const std::vector<Value> items = run.items(subject, "slice");
  if (!run.ok()) return {};
  if (parts < 1 || parts > kMaxRange)
    return run.fail("slice: the number is not between 1 and 100000");
  const auto wanted = static_cast<size_t>(parts);
  const size_t each = items.size() / wanted, longer = items.size() % wanted;
  std::vector<Value> out;
  auto at = items.begin();
  for (size_t i = 0; i < wanted && run.ok(); ++i) {
    const auto end = at + static_cast<std::ptrdiff_t>(each + (i < longer ? 1 : 0));
    std::vector<Value> part(at, end);
    if (bound.given(1) && i >= longer) part.push_back(bound[1]);
    out.push_back(run.list(std::move(part)));
    at = end;
  }
  return run.iterator(std::move(out));
}

Value group_by(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const Key key{run, bound[0], bound.flag(2, false), bound[1]};
  std::vector<Keyed> keyed;
  for (Value& item : run.items(subject, "groupby")) {
    if (!run.ok()) return {};
    keyed.push_back({key(item), std::move(item)});
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    return run.ok() && run.less(a.key, b.key);
  });
  std::vector<Value> out;
  for (size_t begin = 0; begin < keyed.size() && run.ok();) {
    size_t end = begin;
    std::vector<Value> members;
    while (end < keyed.size() && run.equal(keyed[end].key, keyed[begin].key)) {
      members.push_back(keyed[end++].item);
    }
    end = std::max(end, begin + 1);  // NaN does not equal itself
    // The label is the member's own value: comparing without case lowers it only for comparing.
    const Key label{run, bound[0], true, bound[1]};
    auto group = make_sequence(Sequence::Form::kTuple,
                               {label(keyed[begin].item), run.list(std::move(members))});
    group->is_group = true;
    out.emplace_back(std::shared_ptr<const Sequence>(std::move(group)));
    begin = end;
  }
  return run.list(std::move(out));
}

constexpr std::array<FilterEntry, 22> kFilters = {
    {{"batch", batch},      {"count", count},      {"dictsort", dict_sort},
     {"first", first},      {"groupby", group_by}, {"items", items_of},
     {"join", join_filter}, {"last", last},        {"length", count},
     {"list", list},        {"map", map},          {"max", largest},
     {"min", smallest},     {"reject", reject},    {"rejectattr", reject_attr},
     {"reverse", reverse},  {"select", select},    {"selectattr", select_attr},
     {"slice", slices},     {"sort", sort},        {"sum", sum},
     {"unique", unique}}};

}  // namespace

const FilterEntry* find_list_filter(std::string_view name) {
  const auto it = std::find_if(kFilters.begin(), kFilters.end(),
                               [&](const FilterEntry& entry) { return entry.name == name; });
  return it == kFilters.end() ? nullptr : &*it;
}

bool has_filter(std::string_view name) {
  return find_list_filter(name) != nullptr || find_text_filter(name) != nullptr;
}

Value apply_filter(Runtime& run, std::string_view name, const Value& subject,
                   const CallArgs& args) {
  if (!run.step()) return {};
  const FilterEntry* found = find_text_filter(name);
  if (found == nullptr) found = find_list_filter(name);
  if (found == nullptr) return run.fail(fmt::format("no filter named '{}'", name));
  return found->apply(run, subject, args);
}

}  // namespace chimera::jinja
