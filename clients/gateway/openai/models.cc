#include "clients/gateway/openai/models.h"

#include <algorithm>
#include <ctime>

#include "base/json/writer.h"

namespace chimera::gateway::openai {
namespace {

Json entry(const std::string& id) {
  // When a composition came to be is not what this date is for: clients only sort by it.
  return {{"id", id}, {"object", "model"}, {"created", 0}, {"owned_by", "chimera"}};
}

bool usable(const Caller& caller, const std::string& name) {
  return !caller.modules ||
         std::find(caller.modules->begin(), caller.modules->end(), name) != caller.modules->end();
}

Json all(const Caller& caller, const ModelNames& names, const Json& modules) {
  Json list = Json::array({entry(names.name), entry(names.name + ":base")});
  for (const Json& module : modules) {
    const std::string name = module.value("name", "");
    if (module.value("enabled", false) && usable(caller, name)) {
      list.push_back(entry(names.name + ":" + name));
    }
  }
  for (const auto& [name, alias] : names.aliases) {
    const auto& only = alias.modules.only;
    if (only && !std::all_of(only->begin(), only->end(),
                             [&](const auto& module) { return usable(caller, module); })) {
      continue;
    }
    list.push_back(entry(name));
  }
  return list;
}

Response answer(const std::string& id, const Caller& caller, const ModelNames& names,
                const Json& modules) {
  const Json list = all(caller, names, modules);
  if (id.empty()) return {.body = write_json({{"object", "list"}, {"data", list}}) + "\n"};
  for (const Json& model : list) {
    if (model["id"] == Json(id)) return {.body = write_json(model) + "\n"};
  }
  // A combination is not listed, but can be asked for.
  auto found = find_composition(names, id);
  if (const auto* error = std::get_if<ApiError>(&found)) {
    return error_response(ErrorShape::kOpenAi, *error);
  }
  if (caller.modules) {
    if (auto error = check_allowed(std::get<Alias>(found).modules, *caller.modules)) {
      return error_response(ErrorShape::kOpenAi, *error);
    }
  }
  return {.body = write_json(entry(id)) + "\n"};
}

}  // namespace

void list_models(std::shared_ptr<Exchange> exchange, std::string id, Caller caller,
                 Upstream& daemon, const ModelNames& names) {
  const std::string trace = caller.traceparent;
  const auto tell = [exchange = std::move(exchange), id = std::move(id), caller = std::move(caller),
                     &names](client::Result<client::Event> event) {
    if (!event.ok() || event->is_error()) {
      const wire::Error error = event.ok() ? event->error() : event.error();
      return exchange->respond(error_response(ErrorShape::kOpenAi, from_wire(error)));
    }
    exchange->respond(answer(id, caller, names, event->body["modules"]));
  };
  daemon.send(wire::Info{}, tell, trace);
}

}  // namespace chimera::gateway::openai
