#include "experts/kinds/traces.h"

#include <fmt/format.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "experts/kinds/module.h"

namespace chimera {
namespace {

/// "/memfd:NAME (deleted)" -> "/memfd:NAME"
std::string without_deleted(std::string path) {
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.resize(path.size() - kDeleted.size());
  return path;
}

/// The path of a line "BEGIN-END PERMISSIONS OFFSET DEVICE INODE   PATH"; "" for what has none.
std::string path_of(const std::string& line) {
  size_t at = 0;
  for (int field = 0; field < 5 && at != std::string::npos; ++field) {
    at = line.find(' ', at);
    if (at != std::string::npos) at = line.find_first_not_of(' ', at);
  }
  return at == std::string::npos ? "" : without_deleted(line.substr(at));
}

}  // namespace

ModuleTraces::ModuleTraces(const Module& module) : directory_(module.dir + "/") {
  for (const HeldBytes& held : module.held) {
    if (!held.owner.expired()) ranges_.push_back({held.begin, held.end});
  }
  if (module.dir.empty()) directory_.clear();
  if (!module.manifest.library) return;
  for (const ManifestFile& file : module.manifest.files) {
    if (file.path != module.manifest.library->file) continue;
    image_ = "/memfd:" + library_image_name(module.manifest.name, file.sha256);
  }
}

bool ModuleTraces::names_file(const std::string& path) const {
  if (path.empty()) return false;
  return (!image_.empty() && path == image_) ||
         (!directory_.empty() && path.starts_with(directory_));
}

uint64_t ModuleTraces::marked_bytes(uintptr_t begin, uintptr_t end) const {
  uint64_t bytes = 0;
  for (const Range& range : ranges_) {
    const uintptr_t from = std::max(begin, range.begin), to = std::min(end, range.end);
    if (from < to) bytes += to - from;
  }
  return bytes;
}

Traces ModuleTraces::look() const {
  Traces out;
  std::ifstream maps("/proc/self/smaps");
  uintptr_t begin = 0, end = 0;
  for (std::string line; std::getline(maps, line);) {
    uintptr_t from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
      begin = from;
      end = to;
      if (names_file(path_of(line))) ++out.mapped_files;
    } else if (line.starts_with("VmFlags:") && (line + " ").find(" dd ") != std::string::npos) {
      out.mapped_bytes += marked_bytes(begin, end);
    }
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (!error && names_file(without_deleted(target))) ++out.descriptors;
  }
  return out;
}

std::string library_image_name(const std::string& module, const std::string& sha256) {
  return fmt::format("chimera-{}-{}", module, sha256.substr(7, 12));
}

}  // namespace chimera
