// How results are shown: lines of at most 80 columns for people, one JSON object per line for
// programs.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <string>
#include <vector>

#include "check/runner.h"

namespace chimera::check {

/// "PASS  27 output-bounds    3 experts: …", wrapped at 80 columns.
std::string human_line(const CaseResult& result, bool colour);
/// {"type":"case", …}
std::string json_line(const CaseResult& result, uint64_t seed);

struct Summary {
  std::string library;
  Level level;
  uint64_t seed;
  int passed = 0, warned = 0, failed = 0, skipped = 0;
  double seconds = 0;

  void add(const CaseResult& result);
  /// No failure; from level strict on no warning either.
  bool conforms() const;
};
std::string human_summary(const Summary& summary, bool colour);
/// {"type":"summary", …}
std::string json_summary(const Summary& summary);

}  // namespace chimera::check
