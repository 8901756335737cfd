// Group B, continued: hosts of other versions, hosts without services.
#include <dlfcn.h>

#include <cstring>

#include "check/cases/case.h"
#include "check/instance.h"

namespace chimera::check {
namespace {

/// Calls init with `size` bytes of an info that claims `major`.`minor`, before a guard page.
int32_t init_as(Plugin& plugin, uint16_t major, uint16_t minor, uint32_t struct_size,
                size_t bytes) {
  chimera_init_info info = {struct_size, major, minor, {nullptr, 0}};
  Guarded memory("the init info", bytes, 8);
  std::memset(memory.data(), 0xa5, bytes);
  std::memcpy(memory.data(), &info, std::min(bytes, sizeof(info)));
  const auto* lent = reinterpret_cast<const chimera_init_info*>(memory.data());
  return guarded_call(plugin.context(), "init by another host",
                      [&] { return plugin.entry().init(lent); });
}

/// A pair of init and deinit by such a host; what happened, for the sentence.
bool accepts(Plugin& plugin, uint16_t major, uint16_t minor, uint32_t struct_size, size_t bytes) {
  if (init_as(plugin, major, minor, struct_size, bytes) != CHIMERA_OK) return false;
  guarded_call(plugin.context(), "deinit", [&] {
    plugin.entry().deinit();
    return CHIMERA_OK;
  });
  return true;
}

/// Outputs of a few rows under a host; skips when it cannot be started.
std::variant<Matrix, Finding> outputs(Plugin& plugin, Host& host, const Matrix& x,
                                      const Shape& shape) {
  Instance instance(plugin, host);
  if (auto problem = instance.start(x.rows)) return *problem;
  Outcome out = instance.run(x, shape);
  if (out.status != CHIMERA_OK) return skip("forward failed, see case 26.");
  return std::move(out.y);
}

/// forward with a batch that is longer than this header knows.
Problem long_batch(Plugin& plugin, Host& host, const Matrix& x, const Shape& shape,
                   const Matrix& want) {
  struct Long {
    chimera_expert_batch batch;
    unsigned char beyond[64];
  } longer;
  Instance instance(plugin, host);
  if (auto problem = instance.start(x.rows)) return problem;
  Batch batch(plugin.descriptor(), x, shape);
  std::memset(&longer, 0xa5, sizeof(longer));
  longer.batch = *batch.abi();
  longer.batch.struct_size = sizeof(longer);
  const int32_t status = instance.forward(&longer.batch);
  if (status != CHIMERA_OK) {
    return fail(
        "forward refused a longer batch with {} (expected the fields it knows to be enough).",
        status_text(status, host));
  }
  if (auto text = difference(plugin.descriptor(), want, batch.y()); !text.empty()) {
    return fail("a longer batch gives other outputs: {}.", text);
  }
  return std::nullopt;
}

/// forward with a batch of ABI 1.0, which ends where `row_epochs_borrowed` begins.
Problem short_batch(Plugin& plugin, Host& host, const Matrix& x, Shape shape) {
  constexpr size_t kSize = offsetof(chimera_expert_batch, row_epochs_borrowed);
  shape.row_epochs = false;  // a host 1.0 tells of none; whether they matter is case 31's to find
  auto want = outputs(plugin, host, x, shape);
  if (auto* finding = std::get_if<Finding>(&want)) return *finding;
  Instance instance(plugin, host);
  if (auto problem = instance.start(x.rows)) return problem;
  Batch batch(plugin.descriptor(), x, shape);
  chimera_expert_batch of_old = *batch.abi();
  of_old.struct_size = kSize;
  of_old.epoch = 0;
  Guarded memory("the batch of a host 1.0", kSize, 8);
  std::memcpy(memory.data(), &of_old, kSize);
  const int32_t status =
      instance.forward(reinterpret_cast<const chimera_expert_batch*>(memory.data()));
  if (status != CHIMERA_OK) {
    return fail(
        "forward refused a batch of ABI 1.0 with {} (expected required_minor {} to mean it).",
        status_text(status, host), plugin.entry().required_minor);
  }
  if (auto text = difference(plugin.descriptor(), std::get<Matrix>(want), batch.y());
      !text.empty()) {
    return fail("a batch of ABI 1.0 gives other outputs: {}.", text);
  }
  return std::nullopt;
}

struct Ids {
  std::set<std::string> required, optional;
};
Ids service_ids(const chimera_expert_descriptor& d) {
  Ids out;
  for (uint64_t i = 0; i < d.required_service_count; ++i) {
    out.required.insert(d.required_services_borrowed[i]);
  }
  for (uint64_t i = 0; i < d.optional_service_count; ++i) {
    out.optional.insert(d.optional_services_borrowed[i]);
  }
  return out;
}

/// A host without `missing` must be enough.
Problem must_work(Plugin& plugin, const std::set<std::string>& missing, const std::string& what,
                  const Matrix& x, const Shape& shape) {
  Host host(plugin.context());
  host.missing = missing;
  Instance instance(plugin, host);
  if (!instance.create()) return skip("create gave null, see case 26.");
  int32_t status = instance.prepare();
  const char* call = "prepare";
  if (status == CHIMERA_OK) status = instance.activate(x.rows), call = "activate";
  if (status == CHIMERA_OK) status = instance.run(x, shape).status, call = "forward";
  if (status == CHIMERA_OK) return std::nullopt;
  return fail("{} returned {} with a host without {}, which it does not require.", call,
              status_text(status, host), what);
}

/// Without a required service prepare must fail and leave nothing.
Problem must_refuse(Plugin& plugin, const std::string& id) {
  Host host(plugin.context());
  host.missing = {id};
  Instance instance(plugin, host);
  if (!instance.create()) return skip("create gave null, see case 26.");
  const int32_t status = instance.prepare();
  if (status == CHIMERA_OK) {
    return fail("prepare accepted a host without {}, which it requires.", id);
  }
  instance.destroy();
  if (const auto a = host.accounts(); a.blocks != 0) {
    return fail("{} bytes of host memory left after prepare failed.", a.used_bytes);
  }
  return std::nullopt;
}

}  // namespace

Finding check_versions(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  for (const char* other : {"chimera_expert_entry_v0", "chimera_expert_entry_v2"}) {
    if (dlsym(plugin.handle(), other) != nullptr) {
      return fail("it has the symbol {}, so a host of that version would take it.", other);
    }
  }
  Host plain(context);
  const Matrix x =
      random_rows(context, usable_rows(plugin.descriptor(), 5), plugin.descriptor().d_model);
  const Shape shape = some_experts(context, plugin.descriptor()).front();
  auto want = outputs(plugin, plain, x, shape);
  if (auto* finding = std::get_if<Finding>(&want)) return *finding;

  plugin.deinit();
  const bool newer_major =
      accepts(plugin, 2, 0, sizeof(chimera_init_info), sizeof(chimera_init_info));
  const bool older_major =
      accepts(plugin, 0, 9, sizeof(chimera_init_info), sizeof(chimera_init_info));
  accepts(plugin, 1, 0, 8, 8);  // a guard page where module_dir would be
  if (!accepts(plugin, 1, 7, sizeof(chimera_init_info) + 64, sizeof(chimera_init_info) + 64)) {
    return fail("init refuses a host 1.7, which has everything that 1.0 has.");
  }
  if (auto problem = plugin.init(); !problem.empty()) return fail("init afterwards: {}.", problem);

  Host newer(context);
  newer.pretend_newer(7);
  auto got = outputs(plugin, newer, x, shape);
  if (auto* finding = std::get_if<Finding>(&got)) {
    return fail("it does not work with a host 1.7 of longer structures: {}", finding->text);
  }
  if (auto text = difference(plugin.descriptor(), std::get<Matrix>(want), std::get<Matrix>(got));
      !text.empty()) {
    return fail("a host 1.7 gets other outputs: {}.", text);
  }
  if (auto problem = long_batch(plugin, newer, x, shape, std::get<Matrix>(want))) return *problem;
  if (plugin.entry().required_minor == 0) {
    if (auto problem = short_batch(plugin, plain, x, shape)) return *problem;
  }
  return pass(
      "other majors find no symbol ({}), a newer minor is served, no field is read too far.",
      newer_major || older_major ? "init itself does not look" : "init refuses them too");
}

Finding check_services(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const Ids ids = service_ids(plugin.descriptor());
  std::set<std::string> known(all_services().begin(), all_services().end());
  for (const std::string& id : ids.required) {
    if (known.count(id) == 0) return fail("it requires {}, which no host of ABI 1.1 has.", id);
  }
  const Matrix x =
      random_rows(context, usable_rows(plugin.descriptor(), 3), plugin.descriptor().d_model);
  const Shape shape = some_experts(context, plugin.descriptor()).front();
  {
    Host host(context);
    if (auto got = outputs(plugin, host, x, shape); std::holds_alternative<Finding>(got)) {
      return std::get<Finding>(got);
    }
  }
  std::set<std::string> all_optional = known;
  for (const std::string& id : ids.required) all_optional.erase(id);
  if (auto problem = must_work(plugin, all_optional, "any service", x, shape)) return *problem;
  for (const std::string& id : ids.optional) {
    if (auto problem = must_work(plugin, {id}, id, x, shape)) return *problem;
  }
  for (const std::string& id : ids.required) {
    if (auto problem = must_refuse(plugin, id)) return *problem;
  }
  return pass("works without each of {} optional services, refuses without each of {} required.",
              ids.optional.size(), ids.required.size());
}

}  // namespace chimera::check
