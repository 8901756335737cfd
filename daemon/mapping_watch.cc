#include "daemon/mapping_watch.h"

#include <chrono>

#include "base/io/mapped_changes.h"
#include "base/log/log.h"

namespace chimera {
namespace {

// A few calls of `stat` each.
constexpr std::chrono::seconds kLook{1};
// Every so many looks the drawn pages are read as well.
constexpr int kByContent = 30;

}  // namespace

MappingWatch::MappingWatch() : thread_([this] { run(); }) {}

MappingWatch::~MappingWatch() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    stopped_.notify_all();
  }
  thread_.join();
}

void MappingWatch::run() {
  for (int looks = 1;; ++looks) {
    {
      const MutexLock lock(mutex_);
      if (stopped_.wait_for(mutex_, kLook, [this]() REQUIRES(mutex_) { return stopping_; })) return;
    }
    look(looks % kByContent == 0);
  }
}

void MappingWatch::look(bool by_content) {
  for (const std::string& path : by_content ? changed_mappings_by_content() : changed_mappings()) {
    if (!told_.insert(path).second) continue;
    log::error("mapped_file_changed",
               {{"path", path},
                {"hint",
                 "results are not those of its digest any more: put intact weights in "
                 "place by renaming, and restart"}});
  }
}

}  // namespace chimera
