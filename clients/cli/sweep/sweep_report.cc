// What a sweep found, as people and programs read it.
#include <fmt/format.h>

#include "sweep/sweep.h"

namespace chimera::cli {
namespace {

Json to_json(const SweepThreshold& threshold) {
  return {{"event", "threshold"},          {"of", threshold.of_trait ? "trait" : "bits_per_byte"},
          {"lambda", threshold.at()},      {"low", threshold.low.lambda},
          {"high", threshold.high.lambda}, {"part", threshold.part}};
}

void show_table(const Output& out, const SweepReport& report, const std::string& module,
                const std::vector<std::string>& files) {
  const bool trait = report.steps.front().trait.has_value();
  std::vector<std::string> header{"lambda", "bits per byte", "share"};
  if (files.size() > 1) header.insert(header.end(), files.begin(), files.end());
  if (trait) header.emplace_back("trait");
  std::vector<std::vector<std::string>> rows;
  for (const SweepStep& step : report.steps) {
    const auto share = step.shares.find(module);
    std::vector<std::string> row{fmt::format("{:g}", step.lambda), fmt::format("{:.4f}", step.bits),
                                 percent(share == step.shares.end() ? 0.0 : share->second)};
    for (size_t i = 0; files.size() > 1 && i < files.size(); ++i) {
      row.push_back(fmt::format("{:.4f}", step.file_bits[i]));
    }
    if (trait) row.emplace_back(*step.trait ? "yes" : "no");
    rows.push_back(std::move(row));
  }
  std::vector<size_t> right;
  for (size_t i = 0; i < (files.size() > 1 ? 3 + files.size() : 3); ++i) right.push_back(i);
  out.table(header, rows, right);
}

}  // namespace

void show_sweep(const Output& out, const SweepReport& report, const SweepRange& range,
                const std::string& module, const std::vector<std::string>& files) {
  if (out.json()) {
    for (const SweepThreshold& threshold : report.thresholds) out.object(to_json(threshold));
    out.object({{"event", "best"},
                {"lambda", report.best().lambda},
                {"bits_per_byte", report.best().bits}});
    return;
  }
  show_table(out, report, module, files);
  out.line("");
  for (const SweepThreshold& threshold : report.thresholds) {
    if (threshold.of_trait) {
      out.line(fmt::format("the trait turns at {} {:.4f}: {} at {:g}, {} at {:g}", range.parent,
                           threshold.at(), *threshold.low.trait ? "yes" : "no",
                           threshold.low.lambda, *threshold.high.trait ? "yes" : "no",
                           threshold.high.lambda));
    } else {
      out.line(
          fmt::format("steepest at {} {:.4f}: {:.4f} bits per byte at {:g}, {:.4f} at {:g}, "
                      "{} of all change",
                      range.parent, threshold.at(), threshold.low.bits, threshold.low.lambda,
                      threshold.high.bits, threshold.high.lambda, percent(threshold.part)));
    }
  }
  if (report.thresholds.empty()) out.line("nothing changes over the range");
  out.line(fmt::format("best at {} {:g}: {:.4f} bits per byte", range.parent, report.best().lambda,
                       report.best().bits));
}

}  // namespace chimera::cli
