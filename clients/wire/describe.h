// The protocol as documents: the tables of clients/PROTOCOL.md and a JSON Schema of requests, both
// written from the descriptions in calls.h.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "clients/wire/calls.h"

namespace chimera::wire {

/// One field of a call, as a client has to send it.
struct FieldDoc {
  std::string name;
  std::string values;  // for people: "an integer from 1 to 128"
  Json schema;         // of the value
  bool required = false;
  std::string absent;  // what counts when it is left out; empty: nothing to say
  std::string meaning;
};

/// The fields of a call, in the order of its description.
std::vector<FieldDoc> fields_of(size_t call_index);
/// Pairs of fields of which a request has exactly one.
std::vector<std::vector<std::string>> alternatives_of(size_t call_index);

/// A table of fields for every call that has any, as PROTOCOL.md shows them.
std::string protocol_tables();
/// A JSON Schema (draft 7) that takes the requests of both endpoints and nothing else.
Json protocol_schema();

}  // namespace chimera::wire
