// What a bench found: figures with their limits, as a table for people or as one JSON object.
//
// Thread safety: by the thread that made it.
#pragma once

#include <string>
#include <vector>

#include "base/json/json.h"
#include "stats.h"

namespace chimera::bench {

/// Samples of one quantity, and of a limit that was measured beside each of them.
struct Figure {
  std::string name, unit;
  std::vector<double> samples;
  std::string limit_name, limit_unit;  // "" without a limit
  std::vector<double> limits;          // in the order of the samples
  std::vector<double> fractions;       // of the limit that a sample reached
};

class Report {
 public:
  /// Watches the machine from now on: how much of it others take is part of the report.
  Report(std::string workload, int threads);

  void set(const std::string& key, Json value) { settings_[key] = std::move(value); }
  void add(Figure figure) { figures_.push_back(std::move(figure)); }
  void print(bool as_json) const;

 private:
  Json json() const;
  void print_table() const;
  /// Of the time of all CPUs since the report began: taken by this process, by others, and stolen.
  struct Load {
    double own = 0, others = 0, stolen = 0;
  };
  Load load() const;

  std::string workload_;
  int threads_;
  Json settings_ = Json::object();
  std::vector<Figure> figures_;
  CpuTimes begin_;
  double own_begin_ = 0;
};

}  // namespace chimera::bench
