#include "experts/isolation/quarantine.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

constexpr size_t kMaxRecord = 64u << 10;

/// The sentence of a record, or of the lack of a readable one.
std::string describe(const std::string& text) {
  const Result<Json> record = parse_json(text);
  const auto field = [&](const char* key) { return record.ok() ? record->value(key, "?") : "?"; };
  return fmt::format("version {} crashed too often (last at {}: it {})", field("version"),
                     field("time"), field("reason"));
}

}  // namespace

Quarantine::Quarantine(std::string state_dir, Env& env)
    : dir_(state_dir.empty() ? "" : std::move(state_dir) + "/quarantine"), env_(env) {}

std::string Quarantine::path_of(const std::string& key) const {
  return dir_ + "/" + key.substr(key.find(':') + 1) + ".json";
}

Status Quarantine::check(const std::string& key, const std::string& module) const {
  std::string why;
  {
    const MutexLock guard(mutex_);
    if (here_.contains(key)) why = "it crashed too often since the daemon started";
  }
  std::string hint = "Load a corrected version.";
  if (!dir_.empty()) {
    const Result<std::string> text = read_file(env_, path_of(key), kMaxRecord);
    if (text.ok()) {
      why = describe(*text);
    } else if (text.status().code() != Code::kNotFound) {
      why = "its record cannot be read: " + text.status().message();
    }
    hint += fmt::format(" To try this one again, remove quarantine/{} from the state directory.",
                        path_of(key).substr(dir_.size() + 1));
  }
  if (why.empty()) return {};
  return {Code::kFailedPrecondition,
          fmt::format("module {}: its library is in quarantine: {}", module, why), hint};
}

Status Quarantine::put(const std::string& key, const QuarantineRecord& record) {
  const Json j = {{"module", record.module},   {"version", record.version},
                  {"library", record.library}, {"crashes", record.crashes},
                  {"reason", record.reason},   {"time", record.time}};
  const std::string text = write_json(j, {.indent = 2});
  Status status;
  if (!dir_.empty()) {
    if (::mkdir(dir_.c_str(), 0700) != 0 && errno != EEXIST) {
      status = errno_status(dir_ + ": mkdir", errno);
    } else {
      status = write_file_durably(env_, path_of(key), text + "\n", 0600);
    }
  }
  const MutexLock guard(mutex_);
  if (dir_.empty() || !status.ok()) here_.insert(key);
  return status;
}

}  // namespace chimera
