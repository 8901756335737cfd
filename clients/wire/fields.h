// Reads the fields of one JSON object against their declared ranges.
//
// Every field that is asked for counts as known; finish() then refuses the rest by name. The first
// problem wins; after it the readers do nothing.
//
// Thread safety: none; by the thread of one decode.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "clients/wire/protocol.h"
#include "clients/wire/ranges.h"

namespace chimera::wire {

class Fields {
 public:
  /// `object` is borrowed. `where` names it in messages, e.g. "generate" or "generate.modules";
  /// anything but an object is a problem of its own.
  Fields(const Json& object, std::string where);

  enum Presence : bool { kOptional = false, kRequired = true };

  void integer(const IntRange& range, int64_t& out);
  void integer(const IntRange& range, std::optional<int64_t>& out);
  void integer(const IntRange& range, std::optional<uint64_t>& out);
  void real(const RealRange& range, double& out, Presence presence = kOptional);
  void real(const RealRange& range, std::optional<double>& out);
  void boolean(std::string_view name, bool& out);
  void boolean(std::string_view name, std::optional<bool>& out);
  void text(const TextRange& range, std::string& out, Presence presence = kRequired);
  void text(const TextRange& range, std::optional<std::string>& out);
  /// As text, and without control characters: ids, names and paths.
  void label(const TextRange& range, std::string& out, Presence presence = kRequired);
  void label(const TextRange& range, std::optional<std::string>& out);
  /// Token ids; at least `min_count`.
  void tokens(std::vector<int32_t>& out, size_t min_count, Presence presence);
  /// At most `max_count` strings, each within `range` (whose name is the field's).
  void list(const TextRange& range, std::string_view name, size_t max_count,
            std::vector<std::string>& out);
  /// Object of name -> real.
  void map(const RealRange& range, std::map<std::string, double>& out);
  /// One of the spellings in `choices`; index into it.
  std::optional<size_t> choice(std::string_view name, std::initializer_list<const char*> choices);
  /// A nested object, or null when absent.
  const Json* object(std::string_view name, Presence presence = kOptional);
  /// A nested array, or null when absent.
  const Json* array(std::string_view name, Presence presence = kOptional);

  /// Makes a field known that is read elsewhere.
  void skip(std::string_view name) { known_.emplace_back(name); }
  bool has(std::string_view name) const;
  bool ok() const { return !error_; }
  void fail(std::string message, std::string hint = {});
  /// Takes over the problem of a nested reader.
  void adopt(std::optional<Error> nested);
  /// The first problem, else an unknown field, else nullopt.
  std::optional<Error> finish();

 private:
  const Json* take(std::string_view name, Presence presence);
  void mismatch(std::string_view name, const Json& found, const std::string& expected);
  bool read_integer(const IntRange& range, const Json& value, int64_t& out);
  bool read_real(const RealRange& range, std::string_view name, const Json& value, double& out);
  bool read_text(const TextRange& range, std::string_view name, const Json& value, std::string& out,
                 bool control_allowed);

  const Json& object_;
  std::string where_;
  std::vector<std::string_view> known_;
  std::optional<Error> error_;
};

}  // namespace chimera::wire
