#include "daemon/server/wish.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/bytes.h"

namespace chimera {
namespace {

std::string text(const std::string& value) { return value; }
std::string text(bool value) { return value ? "true" : "false"; }
std::string text(int64_t value) { return std::to_string(value); }
std::string text(std::optional<uint64_t> bytes) { return bytes ? bytes_text(*bytes) : "auto"; }
std::string text(std::optional<double> bound) { return bound ? fmt::format("{}", *bound) : "none"; }
std::string text(const PrecisionPlan& precision) { return precision.name(); }

struct Compared {
  const char* key;
  std::string (*value)(const DeploymentConfig&);
};

const Compared kCompared[] = {
    {"backbone.precision", [](const DeploymentConfig& c) { return text(c.backbone.precision); }},
    {"backbone.chat_template",
     [](const DeploymentConfig& c) { return text(c.backbone.chat_template); }},
    {"serve.endpoint", [](const DeploymentConfig& c) { return text(c.serve.endpoint); }},
    {"serve.insecure", [](const DeploymentConfig& c) { return text(c.serve.insecure); }},
    {"serve.max_sequences", [](const DeploymentConfig& c) { return text(c.serve.max_sequences); }},
    {"serve.max_context", [](const DeploymentConfig& c) { return text(c.serve.max_context); }},
    {"serve.max_queue", [](const DeploymentConfig& c) { return text(c.serve.max_queue); }},
    {"serve.max_events", [](const DeploymentConfig& c) { return text(c.serve.max_events); }},
    {"serve.prefill_chunk", [](const DeploymentConfig& c) { return text(c.serve.prefill_chunk); }},
    {"serve.step_target_ms",
     [](const DeploymentConfig& c) { return text(c.serve.step_target_ms); }},
    {"serve.max_live_epochs",
     [](const DeploymentConfig& c) { return text(c.serve.max_live_epochs); }},
    {"serve.prefix_cache", [](const DeploymentConfig& c) { return text(c.serve.prefix_cache); }},
    {"serve.speculative",
     [](const DeploymentConfig& c) {
       return std::string(c.serve.ngram_speculation ? "ngram" : "none");
     }},
    {"memory.budget", [](const DeploymentConfig& c) { return text(c.memory.budget); }},
    {"memory.kv", [](const DeploymentConfig& c) { return text(c.memory.kv); }},
    {"memory.kv_format",
     [](const DeploymentConfig& c) { return kKvFormatNames.text(c.memory.kv_format); }},
    {"memory.unread", [](const DeploymentConfig& c) { return text(c.memory.unread); }},
    {"memory.gate_samples",
     [](const DeploymentConfig& c) {
       return c.memory.gate_samples == uint64_t{0} ? "none" : text(c.memory.gate_samples);
     }},
    {"memory.adapters",
     [](const DeploymentConfig& c) {
       return c.memory.adapters ? text(c.memory.adapters) : std::string("none");
     }},
    {"memory.evict_replaced",
     [](const DeploymentConfig& c) { return text(c.memory.evict_replaced); }},
    {"memory.pin_limit",
     [](const DeploymentConfig& c) {
       return c.memory.pin_limit ? text(*c.memory.pin_limit) : std::string("none");
     }},
    {"memory.pinned",
     [](const DeploymentConfig& c) {
       return std::string(c.memory.end_pinned ? "end" : "restart");
     }},
    {"canary.after", [](const DeploymentConfig& c) { return text(c.canary.after); }},
    {"canary.error_rate", [](const DeploymentConfig& c) { return text(c.canary.error_rate); }},
    {"canary.ms_per_token", [](const DeploymentConfig& c) { return text(c.canary.ms_per_token); }},
    {"canary.bits_per_byte",
     [](const DeploymentConfig& c) { return text(c.canary.bits_per_byte); }},
    {"control.endpoint", [](const DeploymentConfig& c) { return text(c.control.endpoint); }},
    {"state", [](const DeploymentConfig& c) { return text(c.state_dir); }},
    {"security.key", [](const DeploymentConfig& c) { return text(c.security.key); }},
    {"security.clients", [](const DeploymentConfig& c) { return text(c.security.clients); }},
    {"trust.roots",
     [](const DeploymentConfig& c) { return fmt::format("{}", fmt::join(c.trust.roots, ", ")); }},
    {"trust.keys", [](const DeploymentConfig& c) { return text(c.trust.keys); }},
    {"trust.require", [](const DeploymentConfig& c) { return text(c.trust.require_signed); }},
    {"trust.minimum",
     [](const DeploymentConfig& c) {
       std::string out;
       for (const auto& [name, version] : c.trust.minimum) out += name + " " + version + "; ";
       return out;
     }},
    {"libraries.in_process",
     [](const DeploymentConfig& c) {
       return std::string(c.libraries.in_process ? "allow" : "refuse");
     }},
    {"libraries.max_deadline_ms",
     [](const DeploymentConfig& c) { return text(c.libraries.max_deadline_ms); }},
    {"libraries.max_memory",
     [](const DeploymentConfig& c) { return bytes_text(c.libraries.max_memory); }},
    {"libraries.max_load_ms",
     [](const DeploymentConfig& c) { return text(c.libraries.max_load_ms); }},
    {"libraries.max_step_ms",
     [](const DeploymentConfig& c) { return text(c.libraries.max_step_ms); }},
    {"threads",
     [](const DeploymentConfig& c) {
       return c.threads == 0 ? std::string("auto") : std::to_string(c.threads);
     }},
};

/// "LABEL:12:3: " at the start of each line taken away.
Status without_positions(const Status& status, const std::string& label) {
  std::string out;
  std::string_view rest = status.message();
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.starts_with(label + ":")) {
      const size_t digits = line.find_first_not_of("0123456789:", label.size());
      if (digits != std::string_view::npos && line[digits] == ' ') line.remove_prefix(digits + 1);
    }
    if (!out.empty()) out += '\n';
    out += line;
  }
  const bool relative = out.find("(expected an absolute path)") != std::string::npos;
  return {status.code(), std::move(out),
          relative && status.hint().empty()
              ? "the daemon does not know your directory; `chimera` makes paths absolute"
              : status.hint()};
}

Result<ReadWish> read_composition(const std::string& json) {
  // Inside of its key, so that problems are told by the same paths as those of a deployment.
  const auto spec =
      parse_composition(R"({"composition":)" + json + "}", "composition", /*base_dir=*/"");
  if (!spec.ok()) return without_positions(spec.status(), "composition");
  return ReadWish{*spec, "", {}};
}

}  // namespace

std::vector<std::string> compared_keys() {
  std::vector<std::string> keys;
  for (const Compared& one : kCompared) keys.emplace_back(one.key);
  return keys;
}

std::vector<RestartNote> restart_notes(const DeploymentConfig& wanted,
                                       const DeploymentConfig& running) {
  std::vector<RestartNote> notes;
  for (const Compared& one : kCompared) {
    std::string asked = one.value(wanted), runs = one.value(running);
    if (asked != runs) notes.push_back({one.key, std::move(asked), std::move(runs)});
  }
  return notes;
}

Result<ReadWish> read_wish(const wire::Wish& wish, const DeploymentConfig& running) {
  if (wish.deployment_json.empty()) return read_composition(wish.composition_json);
  if (!wish.directory.starts_with('/')) {
    return Status(Code::kInvalidArgument,
                  "directory: " + wish.directory + " (expected an absolute path)",
                  "the daemon does not know your directory; `chimera` makes paths absolute");
  }
  auto config = parse_deployment(wish.deployment_json, "deployment", wish.directory);
  if (!config.ok()) return without_positions(config.status(), "deployment");
  CHIMERA_RETURN_IF_ERROR(fill_defaults(&*config));
  return ReadWish{config->composition, config->backbone.path, restart_notes(*config, running)};
}

Status check_backbone(const std::string& path, const DeploymentConfig& running,
                      const std::string& fingerprint) {
  if (path.empty() || path == running.backbone.path) return {};
  const auto checkpoint = Checkpoint::open(path, Residency::kAutomatic);
  if (!checkpoint.ok()) return checkpoint.status().with_context("backbone.path");
  const auto found = backbone_fingerprint(*checkpoint, running.state_dir);
  if (!found.ok()) return found.status().with_context("backbone.path");
  if (*found == fingerprint) return {};
  return {Code::kFailedPrecondition,
          fmt::format("backbone.path: found {}, {} (expected the backbone that runs: {}, {})", path,
                      *found, running.backbone.path, fingerprint),
          "Another backbone is another daemon's: start one with this file"};
}

}  // namespace chimera
