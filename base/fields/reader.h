// FieldReader: typed access to the fields of one map of a document.
//
// Every getter checks type and range, notes what is wrong with the name and place of the field, and
// then leaves the caller's default as it is: all that is wrong with a document is reported at once.
// Every field that is asked for counts as known; finish() notes the rest by name.
//
// What is read is the same for all documents; what is said about it is a Wording, one for each kind
// of document.
//
// Thread safety: none; by the thread that reads the document.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/fields/problems.h"
#include "base/fields/ranges.h"
#include "base/fields/value.h"

namespace chimera {

/// How the problems of one kind of document are told. `path` is the dotted name of a field, "" the
/// document itself.
class Wording {
 public:
  virtual ~Wording() = default;
  virtual Problem mismatch(const std::string& path, const std::string& found,
                           std::string_view expected) const = 0;
  /// `expected` may be empty.
  virtual Problem missing(const std::string& path, std::string_view key,
                          std::string_view expected) const = 0;
  /// `known` are the keys that there may be.
  virtual Problem unknown(const std::string& path, std::string_view key,
                          std::span<const std::string_view> known) const = 0;

  /// A value as it is shown.
  virtual std::string found(const FieldValue& value) const { return value.found(); }
  /// What is expected of a map.
  virtual std::string map() const { return "a map"; }
  /// What is expected of an integer, and whether it was at least written as one.
  virtual std::string integer(const IntRange& range, bool is_integer) const;
  virtual std::string number(const RealRange& range, bool is_number) const;
  /// The name of `key` in the map at `path`: "path.key".
  virtual std::string path_of(const std::string& path, std::string_view key) const;
};

class FieldReader {
 public:
  enum Presence : bool { kOptional = false, kRequired = true };
  enum Controls : bool { kNoControls = false, kAnyControls = true };
  using Accept = bool (*)(std::string_view);

  /// Reads `map`, whose dotted name is `path`. Anything but a map is noted; the reader is then
  /// empty, and nothing is missing from it. `wording` and `problems` outlive it.
  FieldReader(FieldValue map, std::string path, const Wording& wording, Problems& problems);

  /// False when the value was no map (already noted).
  bool valid() const { return valid_; }
  const FieldValue& at() const { return map_; }
  const std::string& path() const { return path_; }
  std::string path_of(std::string_view key) const { return wording_->path_of(path_, key); }
  Problems& problems() const { return *problems_; }
  const Wording& wording() const { return *wording_; }

  /// Whether there is such a key; does not make it known.
  bool has(std::string_view key) const { return valid_ && map_.find(key).has_value(); }
  /// Makes a key known that is read elsewhere.
  void skip(std::string_view key);
  bool asked(std::string_view key) const;
  /// Forgets which keys were asked for.
  void forget() { known_.clear(); }

  /// The value of `key`, nothing when absent.
  std::optional<FieldValue> find(std::string_view key, Presence presence = kOptional,
                                 std::string_view expected = {});
  /// Each returns whether `out` was set.
  bool integer(const IntRange& range, int64_t& out, Presence presence = kOptional);
  bool number(const RealRange& range, double& out, Presence presence = kOptional);
  bool boolean(std::string_view key, bool& out, Presence presence = kOptional);
  bool text(const TextRange& range, std::string& out, Presence presence, Controls controls);
  /// A scalar that `accept` takes; `expected` describes those.
  bool word(std::string_view key, std::string_view expected, Accept accept, std::string& out,
            Presence presence = kOptional);
  /// One of the spellings of an enum.
  template <class E, size_t N>
  bool choice(std::string_view key, const EnumNames<E, N>& names, E& out,
              Presence presence = kOptional) {
    const std::optional<FieldValue> value = find(key, presence, names.choices());
    if (!value) return false;
    const std::optional<std::string_view> spelling = value->scalar();
    const std::optional<E> named = spelling ? names.find(*spelling) : std::nullopt;
    if (named) out = *named;
    if (!named) bad(key, *value, names.choices());
    return named.has_value();
  }
  /// A map, or a list; other values are noted with what was expected instead.
  std::optional<FieldValue> map(std::string_view key, Presence presence = kOptional);
  std::optional<FieldValue> list(std::string_view key, std::string_view expected,
                                 Presence presence = kOptional);

  /// Values that stand deeper inside `key`.
  bool read(const FieldValue& value, std::string_view key, const IntRange& range,
            int64_t& out) const;
  bool read(const FieldValue& value, std::string_view key, const RealRange& range,
            double& out) const;
  bool read(const FieldValue& value, std::string_view key, const TextRange& range,
            Controls controls, std::string& out) const;

  /// Notes a value that is not what was expected, or what is wrong beyond one value.
  void bad(std::string_view key, const FieldValue& value, std::string_view expected) const;
  void fail(Problem problem) const { problems_->add(map_.place(), std::move(problem)); }

  /// Notes every key that is not among `keys`; without them, that nobody asked for.
  void only(std::span<const std::string_view> keys) const;
  void finish() const;

 private:
  FieldValue map_;
  std::string path_;
  const Wording* wording_;
  Problems* problems_;
  bool valid_;
  std::vector<std::string> known_;
};

}  // namespace chimera
