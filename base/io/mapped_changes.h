// Mapped files that somebody wrote to while they were in use. Results change with them under the
// same digest, and nothing of that is an error to the kernel.
//
// Told by what `stat` says of the file (size, time of the last write), and by a digest of pages
// that were drawn when it was mapped: who writes through a mapping of his own may leave the time
// alone. A write between these pages that sets the time back is not noticed. A file that was
// replaced by renaming is left alone: the mapping keeps the old one.
//
// Thread safety: from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chimera {

/// Paths of mappings whose files changed since they were mapped. What was
/// found once is told from then on. A few system calls for each file.
std::vector<std::string> changed_mappings();
/// The same with the drawn pages looked at: up to 128 KiB of each file are read.
std::vector<std::string> changed_mappings_by_content();

/// Begins and ends to look after the mapping at `base` of the `size` bytes of an open file. Nothing
/// is read through the mapping: that would make its pages resident, by whole folios.
/// unwatch_mapping() of any other address does nothing.
void watch_mapping(const void* base, uint64_t size, const std::string& path, int fd);
void unwatch_mapping(const void* base);

}  // namespace chimera
