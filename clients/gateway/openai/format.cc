#include "clients/gateway/openai/format.h"

namespace chimera::gateway::openai {
namespace {

/// Its name and description are for models that were trained on them.
Json schema_of(Members& members) {
  members.text("name");
  members.text("description");
  bool strict = true;
  members.take("strict", strict);
  const Json* schema = members.take("schema");
  if (schema == nullptr || !(schema->is_object() || schema->is_boolean())) {
    members.fail(bad_field(members.path_of("schema"), "expected a schema"));
    return {};
  }
  return {{"json_schema", *schema}};
}

Json nested_schema(Members& format) {
  const Json* asked = format.take("json_schema");
  if (asked == nullptr || !asked->is_object()) {
    format.fail(bad_field(format.path_of("json_schema"), "expected an object"));
    return {};
  }
  Members inner(*asked, format.path_of("json_schema."));
  Json out = schema_of(inner);
  if (auto problem = inner.finish()) format.fail(std::move(*problem));
  return out;
}

}  // namespace

Json read_format(Members& members, std::string_view name, const Json& format, FormatShape shape) {
  if (!format.is_object()) {
    members.bad(name, format, "an object");
    return {};
  }
  Members inner(format, members.path_of(name) + ".");
  const std::string type = inner.text("type").value_or("");
  Json out;
  if (type == "json_schema") {
    out = shape == FormatShape::kFlat ? schema_of(inner) : nested_schema(inner);
  } else if (type == "json_object") {
    out = {{"json_object", true}};
  } else if (type != "text") {
    inner.fail(bad_field(inner.path_of("type"), "expected text, json_object or json_schema"));
  }
  if (auto problem = inner.finish()) members.fail(std::move(*problem));
  return out;
}

}  // namespace chimera::gateway::openai
