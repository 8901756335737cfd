#include "daemon/registry/watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/io/env.h"
#include "base/log/log.h"
#include "base/threads/mutex.h"

namespace chimera {
namespace {

constexpr uint32_t kRootMask = IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR;
constexpr uint32_t kModuleMask = IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW | IN_MASK_CREATE;
constexpr std::string_view kManifest = "module.yaml";

bool ignored(std::string_view name) {
  return name.empty() || name.front() == '.' || name.ends_with(".tmp") || name.ends_with(".part");
}

bool is_directory(const std::string& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool exists(const std::string& path) {
  struct stat info {};
  return lstat(path.c_str(), &info) == 0;
}

}  // namespace

// Two threads: one reads events and keeps the watches up to date without delay - the time between
// mkdir and the watch on the new directory is the time in which a rename could be missed - and one
// carries out what they mean, which may take as long as a load.
class Watcher::Impl {
 public:
  explicit Impl(Actions actions) : actions_(std::move(actions)) {}
  ~Impl() {
    {
      const MutexLock guard(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    wake_reader();
    if (reader_.joinable()) reader_.join();
    if (doer_.joinable()) doer_.join();
    for (const int fd : {inotify_, reader_fd_}) {
      if (fd >= 0) close(fd);
    }
  }

  Status start(const std::vector<std::string>& dirs) {
    inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (inotify_ < 0) return errno_status("watch: inotify", errno);
    reader_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (reader_fd_ < 0) return errno_status("watch: eventfd", errno);
    CHIMERA_RETURN_IF_ERROR(begin(dirs));
    reader_ = std::thread([this] { read_events(); });
    doer_ = std::thread([this] { carry_out(); });
    return {};
  }

  /// Has the reader watch other directories, and waits until it does.
  Status watch(const std::vector<std::string>& dirs) {
    std::future<Status> answer;
    {
      const MutexLock guard(mutex_);
      wished_.emplace(Wished{dirs, {}});
      answer = wished_->answer.get_future();
    }
    wake_reader();
    return answer.get();
  }

 private:
  Status begin(const std::vector<std::string>& dirs) {
    const ThreadRoleScope role(reader_role_);  // whose thread is still to come
    CHIMERA_RETURN_IF_ERROR(set_roots(dirs));
    for (const auto& [wd, root] : roots_) scan(root);
    return {};
  }

  struct Wished {
    std::vector<std::string> dirs;
    std::promise<Status> answer;
  };

  void wake_reader() {
    const uint64_t one = 1;
    if (reader_fd_ >= 0) (void)!write(reader_fd_, &one, sizeof(one));
  }

  /// Watches `dirs` and nothing else, or leaves everything as it is.
  Status set_roots(const std::vector<std::string>& dirs) REQUIRES(reader_role_) {
    std::map<int, std::string> next;
    for (const std::string& dir : dirs) {
      const int wd = inotify_add_watch(inotify_, dir.c_str(), kRootMask);
      if (wd < 0) {
        Status status = errno_status("watch: " + dir, errno);
        for (const auto& [added, name] : next) {
          if (!roots_.contains(added)) inotify_rm_watch(inotify_, added);
        }
        return status;
      }
      next[wd] = dir;
    }
    for (const auto& [wd, dir] : roots_) {
      if (next.contains(wd)) continue;
      inotify_rm_watch(inotify_, wd);
      forget_modules_of(dir);
    }
    roots_ = std::move(next);
    return {};
  }

  void forget_modules_of(const std::string& root) REQUIRES(reader_role_) {
    const auto inside = [&](const std::string& dir) { return dir.starts_with(root + "/"); };
    std::erase_if(modules_, [&](const auto& module) {
      if (!inside(module.second)) return false;
      inotify_rm_watch(inotify_, module.first);
      return true;
    });
    const MutexLock guard(mutex_);
    std::erase_if(seen_, inside);
    std::erase_if(todo_, [&](const auto& pending) { return inside(pending.first); });
  }

  // What is there counts as complete. Watches come before the look, so nothing falls between.
  void scan(const std::string& root) REQUIRES(reader_role_) {
    std::vector<std::string> found;
    std::error_code error;
    for (std::filesystem::directory_iterator it(root, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (!ignored(name) && is_directory(it->path().string())) found.push_back(it->path().string());
    }
    if (error) log::warning("watch_unreadable", {{"dir", root}, {"reason", error.message()}});
    std::sort(found.begin(), found.end());
    for (const std::string& dir : found) {
      watch_module(dir);
      if (exists(dir + "/" + std::string(kManifest))) want(dir, LoadSource::kScan);
    }
  }

  void watch_module(const std::string& dir) REQUIRES(reader_role_) {
    const int wd = inotify_add_watch(inotify_, dir.c_str(), kModuleMask);
    if (wd >= 0) {
      modules_[wd] = dir;
    } else if (errno != EEXIST && errno != ENOENT && errno != ENOTDIR) {
      log::warning("watch_incomplete", {{"dir", dir}, {"reason", std::strerror(errno)}});
    }
  }

  // A directory renamed away keeps its watch; events from it would carry the old name.
  void forget_module(const std::string& dir) REQUIRES(reader_role_) {
    for (auto it = modules_.begin(); it != modules_.end(); ++it) {
      if (it->second != dir) continue;
      inotify_rm_watch(inotify_, it->first);
      modules_.erase(it);
      return;
    }
  }

  void read_events() {
    const ThreadRoleScope role(reader_role_);
    alignas(inotify_event) char buffer[16384];
    for (;;) {
      pollfd fds[2] = {{inotify_, POLLIN, 0}, {reader_fd_, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[1].revents != 0 && !answer_wish()) return;
      const ssize_t n = read(inotify_, buffer, sizeof(buffer));
      for (ssize_t at = 0; at < n;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
        handle(*event, event->len > 0 ? std::string_view(event->name) : std::string_view());
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
  }

  /// Does what watch() asks for. False: time to end.
  bool answer_wish() REQUIRES(reader_role_) {
    uint64_t count = 0;
    (void)!read(reader_fd_, &count, sizeof(count));
    std::optional<Wished> wished;
    {
      const MutexLock guard(mutex_);
      if (stopping_) return false;
      wished = std::exchange(wished_, std::nullopt);
    }
    if (!wished) return true;
    Status status = set_roots(wished->dirs);
    if (status.ok()) rescan();
    wished->answer.set_value(std::move(status));
    return true;
  }

  void handle(const inotify_event& event, std::string_view name) REQUIRES(reader_role_) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      log::warning("watch_overflow", {{"hint", "looking at all watched directories again"}});
      return rescan();
    }
    if ((event.mask & IN_IGNORED) != 0) {
      if (roots_.contains(event.wd)) {
        log::error("watch_lost", {{"dir", roots_[event.wd]},
                                  {"hint", "put it back and send SIGHUP to watch it again"}});
      }
      roots_.erase(event.wd);
      modules_.erase(event.wd);
      return;
    }
    if (const auto module = modules_.find(event.wd); module != modules_.end()) {
      if (name == kManifest) want(module->second, LoadSource::kArrival);
      return;
    }
    const auto root = roots_.find(event.wd);
    if (root == roots_.end() || (event.mask & IN_ISDIR) == 0 || ignored(name)) return;
    const std::string dir = root->second + "/" + std::string(name);
    if ((event.mask & (IN_MOVED_FROM | IN_DELETE)) != 0) {
      forget_module(dir);
      unwant(dir);
    } else if ((event.mask & IN_MOVED_TO) != 0) {
      watch_module(dir);
      if (exists(dir + "/" + std::string(kManifest))) want(dir, LoadSource::kArrival);
    } else if ((event.mask & IN_CREATE) != 0) {
      watch_module(dir);
      // Whether a manifest that is there already came by rename cannot be told any more.
      if (exists(dir + "/" + std::string(kManifest))) {
        log::warning(
            "watch_filled_in_place",
            {{"dir", dir}, {"hint", "move the finished directory in, or rename module.yaml last"}});
      }
    }
  }

  // Looks at everything again, because events were lost or somebody asked for it.
  void rescan() REQUIRES(reader_role_) {
    std::set<std::string> gone;
    {
      const MutexLock guard(mutex_);
      for (const std::string& dir : seen_) {
        if (!is_directory(dir)) gone.insert(dir);
      }
    }
    for (const std::string& dir : gone) {
      forget_module(dir);
      unwant(dir);
    }
    for (const auto& [wd, root] : roots_) scan(root);
  }

  /// What is to be done about a directory: its module loaded, or without a source retired.
  using Wish = std::optional<LoadSource>;

  void want(const std::string& dir, LoadSource source) {
    {
      const MutexLock guard(mutex_);
      seen_.insert(dir);
      queue(dir, source);
    }
    wake_.notify_one();
  }
  void unwant(const std::string& dir) {
    {
      const MutexLock guard(mutex_);
      if (seen_.erase(dir) == 0) return;  // never loaded from here
      queue(dir, std::nullopt);
    }
    wake_.notify_one();
  }
  /// Only the last wish for a directory counts, which also bounds the queue; but what has arrived
  /// has, although it is seen lying there before it is loaded.
  void queue(const std::string& dir, Wish wish) REQUIRES(mutex_) {
    std::erase_if(todo_, [&](const auto& pending) {
      if (pending.first != dir) return false;
      if (wish == LoadSource::kScan && pending.second == LoadSource::kArrival)
        wish = pending.second;
      return true;
    });
    todo_.emplace_back(dir, wish);
  }

  void carry_out() {
    for (;;) {
      std::pair<std::string, Wish> next;
      {
        const MutexLock lock(mutex_);
        wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !todo_.empty(); });
        if (stopping_) return;
        next = std::move(todo_.front());
        todo_.pop_front();
      }
      const auto& [dir, wish] = next;
      const Status status = wish ? actions_.load(dir, *wish) : actions_.unload(dir);
      if (status.ok() || (!wish && status.code() == Code::kNotFound)) continue;
      log::warning(wish ? "watch_not_loaded" : "watch_not_retired",
                   {{"dir", dir}, {"reason", status.message()}, {"hint", status.hint()}});
    }
  }

  const Actions actions_;
  int inotify_ = -1;
  int reader_fd_ = -1;  // wakes the reader: to end, or for what is wished
  ThreadRole reader_role_;
  std::map<int, std::string> roots_ GUARDED_BY(reader_role_);    // by watch descriptor
  std::map<int, std::string> modules_ GUARDED_BY(reader_role_);  // likewise

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::pair<std::string, Wish>> todo_ GUARDED_BY(mutex_);  // by directory
  std::set<std::string> seen_ GUARDED_BY(mutex_);                     // directories to be loaded
  std::optional<Wished> wished_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread reader_, doer_;
};

Watcher::Actions Watcher::actions_of(Registry* registry) {
  return {[registry](const std::string& dir, LoadSource source) {
            LoadArgs args;
            args.path = dir;
            args.source = source;
            return registry->load(args).status();
          },
          [registry](const std::string& dir) { return registry->unload_from(dir).status(); }};
}

Watcher::Watcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Watcher::~Watcher() = default;

Status Watcher::watch(const std::vector<std::string>& dirs) { return impl_->watch(dirs); }

Result<std::unique_ptr<Watcher>> Watcher::start(const std::vector<std::string>& dirs,
                                                Actions actions) {
  auto impl = std::make_unique<Impl>(std::move(actions));
  CHIMERA_RETURN_IF_ERROR(impl->start(dirs));
  return std::unique_ptr<Watcher>(new Watcher(std::move(impl)));
}

}  // namespace chimera
