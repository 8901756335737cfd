// The directory that an assembly writes: built under "PATH.partial", renamed when it is complete,
// removed when it fails; kept when the process is killed, and then gone on with.
//
// Thread safety: one thread.
#pragma once

#include <string>

#include "base/io/env.h"
#include "base/status.h"

namespace chimera {

class PartialOutput {
 public:
  /// `key` says what is being written. already_exists when `path` exists, or when there is a
  /// partial one of another key.
  static Result<PartialOutput> open(Env& env, const std::string& path, const std::string& key);
  PartialOutput(PartialOutput&& other) noexcept;
  PartialOutput& operator=(PartialOutput&&) = delete;
  /// Removes what was not committed, and the parent directories that were made for it.
  ~PartialOutput();

  /// Where to write meanwhile.
  const std::string& dir() const { return dir_; }
  /// Whether an interrupted run is gone on with.
  bool resumed() const { return made_.empty(); }
  Status commit();

 private:
  PartialOutput(Env& env, std::string path, std::string dir, std::string made)
      : env_(&env), path_(std::move(path)), dir_(std::move(dir)), made_(std::move(made)) {}

  Env* env_;
  std::string path_;
  std::string dir_;   // empty once committed
  std::string made_;  // outermost directory made; empty: an interrupted run is gone on with
};

}  // namespace chimera
