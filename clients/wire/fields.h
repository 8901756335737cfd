// Reads the fields of one JSON object of a request against their declared ranges: FieldReader in
// the words of the wire, and what only requests have.
//
// Thread safety: none; by the thread of one decode.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields/reader.h"
#include "base/json/json.h"
#include "clients/wire/protocol.h"
#include "clients/wire/ranges.h"

namespace chimera::wire {

/// Of one request. A client that gets this many is not helped by more.
class RequestProblems : public Problems {
 public:
  RequestProblems() : Problems({}, 8) {}
  /// All of them, else nullopt.
  std::optional<Error> error() const;
};

class Fields {
 public:
  using Presence = FieldReader::Presence;
  static constexpr Presence kOptional = FieldReader::kOptional;
  static constexpr Presence kRequired = FieldReader::kRequired;

  /// `object` is borrowed. `where` names it in messages, e.g. "generate" or "generate.modules";
  /// anything but an object is a problem of its own.
  Fields(const Json& object, std::string where, RequestProblems& problems);

  template <class T>
  void integer(const IntRange& range, T& out) {
    int64_t number = 0;
    if (reader_.integer(range, number)) out = static_cast<typename Plain<T>::type>(number);
  }
  template <class T>
  void real(const RealRange& range, T& out, Presence presence = kOptional) {
    double number = 0;
    if (reader_.number(range, number, presence)) out = number;
  }
  template <class T>
  void boolean(std::string_view name, T& out) {
    bool flag = false;
    if (reader_.boolean(name, flag)) out = flag;
  }
  void text(const TextRange& range, std::string& out, Presence presence = kRequired);
  void text(const TextRange& range, std::optional<std::string>& out);
  /// As text, and without control characters: ids, names and paths.
  void label(const TextRange& range, std::string& out, Presence presence = kRequired);
  void label(const TextRange& range, std::optional<std::string>& out);
  /// `traceparent`, version 00; absent: "".
  void trace(std::string& out);
  /// Token ids; at least `min_count`.
  void tokens(std::vector<int32_t>& out, size_t min_count, Presence presence);
  /// At most `max_count` strings, each within `range` (whose name is the field's).
  void list(const TextRange& range, std::string_view name, size_t max_count,
            std::vector<std::string>& out);
  /// Object of name -> real.
  void map(const RealRange& range, std::map<std::string, double>& out);
  /// Object of at least one name -> real; required.
  void weights(const RealRange& range, size_t max_count, std::map<std::string, double>& out);
  /// Object of token id, in decimal -> real; at most `max_count`.
  void map(const RealRange& range, size_t max_count, std::map<int32_t, double>& out);
  /// One of the spellings in `choices`; index into it.
  std::optional<size_t> choice(std::string_view name, std::initializer_list<const char*> choices);
  /// A nested object, or null when absent.
  const Json* object(std::string_view name, Presence presence = kOptional);
  /// A nested array, or null when absent.
  const Json* array(std::string_view name, Presence presence = kOptional);

  /// Makes a field known that is read elsewhere.
  void skip(std::string_view name) { reader_.skip(name); }
  bool has(std::string_view name) const { return reader_.has(name); }
  void fail(std::string message);
  RequestProblems& problems() { return problems_; }
  /// Notes unknown fields.
  void finish() const { reader_.finish(); }

 private:
  /// int64_t and uint64_t, also in an optional. Every range of a uint64_t starts at 0 or above.
  template <class T>
  struct Plain {
    using type = T;
  };
  template <class T>
  struct Plain<std::optional<T>> {
    using type = T;
  };

  const Json& object_;
  RequestProblems& problems_;
  FieldReader reader_;
};

}  // namespace chimera::wire
