#include "daemon/security/usage_ledger.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <random>
#include <span>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/log/log.h"

namespace chimera {
namespace {

constexpr int64_t kHour = 3600, kDay = 24 * kHour;
constexpr std::string_view kPrefix = "usage-", kSuffix = ".jsonl";
// Far more than compaction lets a file become: 24 hours of 10,000 clients with 5 modules each.
constexpr uint64_t kMaxFile = uint64_t{256} << 20;

/// 64 bits that no other run has.
std::string new_run() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

std::string line_of(std::string_view batch, const UsageRows& rows) {
  Json list = Json::array();
  for (const auto& [key, sum] : rows) list.push_back(to_json(key, sum));
  return write_json({{"batch", batch}, {"rows", std::move(list)}}) + "\n";
}

/// Adds what `text` (lines of a file) says of hours that end after `since`. Lines that are none, as
/// a crash may leave one, and those of a batch that was seen before count nothing.
void add_lines(std::string_view text, int64_t since, std::set<std::string>* seen, UsageRows* out) {
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    const auto line = parse_json(one);
    if (!line.ok() || !line->is_object()) continue;
    if (!seen->insert(line->value("batch", "")).second) continue;
    for (const Json& row : (*line)["rows"]) {
      UsageKey key{row.value("hour", int64_t{0}), row.value("client", ""), row.value("module", ""),
                   row.value("version", "")};
      if (key.hour + kHour <= since) continue;
      (*out)[std::move(key)].add({row.value("requests", uint64_t{0}),
                                  row.value("prompt_tokens", int64_t{0}),
                                  row.value("completion_tokens", int64_t{0}),
                                  row.value("rows", uint64_t{0}), row.value("share", 0.0)});
    }
  }
}

Status write_all(Env& env, int fd, std::string_view text, const std::string& file) {
  while (!text.empty()) {
    const ssize_t written = env.write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return errno_status(file, written < 0 ? errno : ENOSPC);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

/// Appends a line and syncs it; `size` is the file's afterwards.
Status append_synced(Env& env, const std::string& file, const std::string& line, uint64_t* size) {
  const int fd = env.open(file.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_status(file, errno);
  const ScopedFd held(env, fd, 0);
  struct stat before {};
  if (::fstat(fd, &before) != 0) return errno_status(file, errno);
  // What a crash left half is a line of its own, which nobody can read.
  char last = '\n';
  if (before.st_size > 0 && env.pread(fd, &last, 1, before.st_size - 1) != 1) {
    return errno_status(file, errno);
  }
  Status status = write_all(env, fd, last == '\n' ? line : "\n" + line, file);
  if (status.ok() && env.fsync(fd) != 0) status = errno_status(file, errno);
  if (!status.ok()) {
    // To be tidy: if this fails too, the line is written once more under the same number.
    [[maybe_unused]] const int cut = ::ftruncate(fd, before.st_size);
    return status;
  }
  struct stat after {};
  if (::fstat(fd, &after) == 0) *size = static_cast<uint64_t>(after.st_size);
  return before.st_size > 0 ? Status() : sync_directory(env, parent_directory(file));
}

}  // namespace

Json to_json(const UsageKey& key, const UsageSum& sum) {
  return {{"hour", key.hour},
          {"client", key.client},
          {"module", key.module},
          {"version", key.version},
          {"requests", sum.requests},
          {"prompt_tokens", sum.prompt_tokens},
          {"completion_tokens", sum.completion_tokens},
          {"rows", sum.rows},
          {"share", sum.share}};
}

void UsageSum::add(const UsageSum& other) {
  requests += other.requests;
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  rows += other.rows;
  share += other.share;
}

UsageLedger::UsageLedger(Options options)
    : options_(std::move(options)), run_(new_run()), compact_at_(options_.compact_bytes) {}

Result<std::unique_ptr<UsageLedger>> UsageLedger::open(Options options) {
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) return errno_status(options.directory, error.value());
  if (::chmod(options.directory.c_str(), 0700) != 0) return errno_status(options.directory, errno);
  auto ledger = std::unique_ptr<UsageLedger>(new UsageLedger(std::move(options)));
  ledger->thread_ = std::thread([raw = ledger.get()] { raw->work(); });
  return ledger;
}

UsageLedger::~UsageLedger() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::string UsageLedger::file_of(int64_t hour) const {
  return fmt::format("{}/{}{:%Y-%m-%d}{}", options_.directory, kPrefix,
                     fmt::gmtime(std::time_t{hour}), kSuffix);
}

void UsageLedger::add(const std::string& client, const DoneEvent& done) {
  const int64_t hour = std::time(nullptr) / kHour * kHour;
  UsageRows rows;
  const auto put = [&](std::string_view module, const std::string& version, uint64_t given,
                       double share) {
    const UsageSum sum{1, done.prompt_tokens, done.completion_tokens, given, share};
    rows.emplace(UsageKey{hour, client, std::string(module), version}, sum);
  };
  bool computed = done.backbone_rows > 0;
  put(kBackboneUsage, "", done.backbone_rows, done.backbone_share);
  for (const auto& [name, module] : done.modules) {
    if (module.rows == 0) continue;  // permitted, and never chosen
    put(name, module.version, module.rows, module.share);
    computed = true;
  }
  if (!computed) return;
  const MutexLock lock(mutex_);
  for (const auto& [key, sum] : rows) pending_[key].add(sum);
}

void UsageLedger::work() {
  pthread_setname_np(pthread_self(), "chimera-usage");
  bool last = false;
  while (!last) {
    {
      const MutexLock lock(mutex_);
      last = wake_.wait_for(mutex_, options_.interval,
                            [this]() REQUIRES(mutex_) { return stopping_; });
    }
    flush();
  }
}

void UsageLedger::flush() {
  const MutexLock disk(disk_mutex_);
  // While the disk takes nothing, what comes is gathered instead of one line a second.
  Status status = write_lines();
  if (status.ok()) {
    take_pending();
    status = write_lines();
  }
  const bool failed_before = std::exchange(failing_, !status.ok());
  if (status.ok() || failed_before) return;
  log::error("usage_not_written",
             {{"reason", status.message()}, {"hint", "it is kept and tried again every second"}});
}

void UsageLedger::take_pending() {
  UsageRows rows;
  {
    const MutexLock lock(mutex_);
    rows.swap(pending_);
  }
  std::map<std::string, UsageRows> days;
  for (const auto& [key, sum] : rows) days[file_of(key.hour)][key] = sum;
  for (const auto& [file, of_day] : days) {
    const std::string batch = fmt::format("{}-{}", run_, next_batch_++);
    unwritten_.push_back({file, line_of(batch, of_day)});
  }
}

Status UsageLedger::write_lines() {
  while (!unwritten_.empty()) {
    const std::string file = unwritten_.front().file;
    uint64_t size = 0;
    CHIMERA_RETURN_IF_ERROR(append_synced(*options_.env, file, unwritten_.front().text, &size));
    unwritten_.pop_front();
    const bool next_day = !last_file_.empty() && last_file_ != file;
    if (next_day && unwritten_.empty()) compact(last_file_);
    if (last_file_ != file) compact_at_ = options_.compact_bytes;
    last_file_ = file;
    if (size < compact_at_ || !unwritten_.empty()) continue;
    compact(file);
    struct stat now {};
    const bool known = ::stat(file.c_str(), &now) == 0;
    compact_at_ = options_.compact_bytes + 2 * (known ? static_cast<uint64_t>(now.st_size) : size);
  }
  return {};
}

/// Only while no line waits to be written again: the sums hold no numbers of batches. What fails
/// changes nothing and is no harm: the lines say the same.
void UsageLedger::compact(const std::string& file) {
  const auto text = read_file(*options_.env, file, kMaxFile);
  if (!text.ok()) return;
  UsageRows sums;
  std::set<std::string> seen;
  add_lines(*text, /*since=*/0, &seen, &sums);
  const std::string batch = fmt::format("{}-{}", run_, next_batch_++);
  const Status status = write_file_durably(*options_.env, file, line_of(batch, sums), 0600);
  if (!status.ok()) log::debug("usage_not_summed_up", {{"reason", status.message()}});
}

Result<UsageRows> UsageLedger::read(int64_t since, size_t most) const {
  const MutexLock disk(disk_mutex_);
  UsageRows sums;
  std::error_code error;
  const std::string first = file_of(since / kDay * kDay);
  std::set<std::string> seen;
  for (std::filesystem::directory_iterator it(options_.directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    if (it->path().string() < first) continue;  // days sort as their names do
    const auto text = read_file(*options_.env, it->path().string(), kMaxFile);
    if (!text.ok()) return text.status();
    add_lines(*text, since, &seen, &sums);
    if (sums.size() > most) break;  // years of hours need not be held to be refused
  }
  if (error) return errno_status(options_.directory, error.value());
  for (const Line& line : unwritten_) add_lines(line.text, since, &seen, &sums);
  const MutexLock lock(mutex_);
  for (const auto& [key, sum] : pending_) {
    if (key.hour + kHour > since) sums[key].add(sum);
  }
  if (sums.size() > most) {
    return Status(Code::kResourceExhausted,
                  fmt::format("usage: more than {0} rows (expected at most {0}, limit)", most),
                  "ask for a later `since`, or a higher `limit`");
  }
  return sums;
}

}  // namespace chimera
