#include "daemon/startup.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>

#include "backbone/families/model_config.h"
#include "base/io/env.h"
#include "base/log/log.h"
#include "clients/wire/endpoints.h"
#include "experts/module/manifest.h"
#include "text/template/chat_template.h"

namespace chimera {
namespace {

constexpr size_t kMaxConfigBytes = 1u << 20;

bool is_directory(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void check_backbone(const std::string& dir, std::vector<std::string>* problems,
                    std::string* summary) {
  const Result<std::string> text = read_file(Env::system(), dir + "/config.json", kMaxConfigBytes);
  if (!text.ok()) {
    problems->push_back("backbone.path: " + text.status().to_string());
    return;
  }
  const Result<ModelConfig> model = parse_model_config(*text, dir + "/config.json");
  if (!model.ok()) {
    problems->push_back("backbone.path: " + model.status().to_string());
    return;
  }
  *summary +=
      fmt::format("backbone     {} ({}, {} layers, hidden {}, {} experts)\n", dir,
                  model->model_type, model->num_layers, model->hidden_size, model->num_experts);
  const auto chat = ChatTemplate::load(dir);
  *summary += "chat         " +
              (!chat.ok()         ? chat.status().to_string()
               : *chat == nullptr ? "no template"
                                  : "by the checkpoint's template") +
              "\n";
}

void check_modules(const CompositionSpec& composition, std::vector<std::string>* problems,
                   std::string* summary) {
  for (size_t i = 0; i < composition.modules.size(); ++i) {
    const CompositionSpec::ModuleSpec& module = composition.modules[i];
    const Result<Manifest> manifest = read_manifest(module.path);
    if (!manifest.ok()) {
      problems->push_back(
          fmt::format("composition.modules[{}]: {}", i, manifest.status().to_string()));
      continue;
    }
    *summary += fmt::format("module       {} {}{} ({})\n", manifest->name, manifest->version,
                            module.enabled ? "" : ", disabled", module.path);
  }
}

}  // namespace

Status check_deployment(const DeploymentConfig& config, std::string* summary) {
  std::vector<std::string> problems;
  check_backbone(config.backbone.path, &problems, summary);
  *summary += fmt::format("precision    {}\n",
                          config.backbone.precision == Precision::kF32 ? "f32" : "bf16");
  check_modules(config.composition, &problems, summary);
  const auto or_default = [](const std::string& endpoint, const std::string& fallback) {
    return endpoint.empty() ? fallback : endpoint;
  };
  *summary += "serve        " + or_default(config.serve.endpoint, wire::default_serve_endpoint()) +
              "\n" + "control      " +
              or_default(config.control.endpoint, wire::default_control_endpoint()) + "\n";
  std::string state = config.state_dir;
  if (state.empty()) {
    const Result<std::string> fallback = default_state_dir();
    if (fallback.ok()) {
      state = *fallback;
    } else {
      problems.push_back(fallback.status().to_string());
    }
  }
  *summary += "state        " + state + "\n";
  for (size_t i = 0; i < config.watch.size(); ++i) {
    *summary += "watch        " + config.watch[i] + "\n";
    if (!is_directory(config.watch[i])) {
      problems.push_back(
          fmt::format("watch[{}]: found no directory {} (expected one)", i, config.watch[i]));
    }
  }
  if (problems.empty()) return {};
  return {Code::kInvalidArgument, fmt::format("{}", fmt::join(problems, "\n"))};
}

Result<std::vector<FileLock>> lock_endpoints(const DeploymentConfig& config) {
  std::vector<FileLock> locks;
  for (const std::string& endpoint : {config.serve.endpoint, config.control.endpoint}) {
    const std::string path(wire::ipc_path(endpoint));
    if (path.empty()) continue;
    const std::string parent = parent_directory(path);
    if (!is_directory(parent)) {
      std::error_code error;
      std::filesystem::create_directories(parent, error);
      if (error) return errno_status("directory of " + endpoint, error.value());
      chmod(parent.c_str(), 0700);
    }
    Result<FileLock> lock = FileLock::take(path + ".lock", "endpoint " + endpoint);
    if (!lock.ok()) return lock.status();
    locks.push_back(std::move(*lock));
  }
  return locks;
}

std::shared_ptr<LibraryRuntime> library_runtime(const DeploymentConfig& config) {
  LibraryRuntime::Options options;
  options.allow_in_process = config.libraries.in_process;
  options.worker_count = static_cast<uint32_t>(config.threads);
  options.state_dir = config.state_dir;
  options.log = [](LibraryRuntime::Severity severity, const std::string& module,
                   const std::string& line) {
    using Severity = LibraryRuntime::Severity;
    const auto write = severity == Severity::kDebug     ? log::debug
                       : severity == Severity::kInfo    ? log::info
                       : severity == Severity::kWarning ? log::warning
                                                        : log::error;
    write("library", {{"module", module}, {"line", line}});
  };
  return std::make_shared<LibraryRuntime>(std::move(options));
}

EngineOptions engine_options(const DeploymentConfig& config) {
  EngineOptions options;
  options.threads = config.threads > 0 ? config.threads : auto_threads();
  options.max_sequences = config.serve.max_sequences;
  options.max_context = config.serve.max_context;
  options.max_queue = config.serve.max_queue;
  options.prefill_chunk = config.serve.prefill_chunk;
  options.max_live_epochs = config.serve.max_live_epochs;
  options.prefix_cache = config.serve.prefix_cache;
  return options;
}

}  // namespace chimera
