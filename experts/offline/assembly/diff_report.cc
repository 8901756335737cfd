#include "experts/offline/assembly/diff_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/io/env.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

std::string layer_text(int64_t layer) { return layer < 0 ? "-" : std::to_string(layer); }

/// 10^k for the smallest k with value <= 10^k.
double decade_above(double value) { return std::pow(10.0, std::ceil(std::log10(value))); }

}  // namespace

std::string diff_table(const std::vector<DiffGroup>& groups) {
  std::string out =
      fmt::format("{:>5}  {:<14}  {:>7}  {:>10}  {:>10}  {:>7}  {:>9}  {:>6}\n", "layer", "set",
                  "tensors", "rms", "largest", "changed", "cosine", "rank");
  for (const DiffGroup& g : groups) {
    out +=
        fmt::format("{:>5}  {:<14}  {:>7}  {:>10.3e}  {:>10.3e}  {:>6.1f}%  {:>9.6f}  {:>6}\n",
                    layer_text(g.layer), g.set, g.tensors, g.rms, g.largest, g.changed * 100,
                    g.cosine, g.spectrum.empty() ? "-" : fmt::format("{:.1f}", g.effective_rank));
  }
  return out;
}

std::string diff_csv(const std::vector<DiffGroup>& groups) {
  std::string out =
      "layer,set,tensors,elements,rms,largest,largest_tensor,changed,cosine,effective_rank,"
      "spectrum\n";
  for (const DiffGroup& g : groups) {
    out += fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", g.layer, g.set, g.tensors, g.elements,
                       g.rms, g.largest, g.largest_name, g.changed, g.cosine, g.effective_rank,
                       fmt::join(g.spectrum, " "));
  }
  return out;
}

std::string diff_json(const std::vector<DiffGroup>& groups) {
  std::string out;
  for (const DiffGroup& g : groups) {
    out += write_json({{"layer", g.layer},
                       {"set", g.set},
                       {"tensors", g.tensors},
                       {"elements", g.elements},
                       {"rms", g.rms},
                       {"largest", g.largest},
                       {"largest_tensor", g.largest_name},
                       {"changed", g.changed},
                       {"cosine", g.cosine},
                       {"effective_rank", g.effective_rank},
                       {"spectrum", g.spectrum}}) +
           "\n";
  }
  return out;
}

Status write_diff_plot(const std::vector<DiffGroup>& groups, const std::string& path) {
  constexpr double kWidth = 800, kHeight = 420, kLeft = 80, kRight = 150, kTop = 20, kBottom = 50;
  constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#e69f00", "#56b4e9", "#000000", "#999999"};
  std::map<std::string, std::vector<const DiffGroup*>> lines;
  double low = HUGE_VAL, high = 0;
  int64_t last = 0;
  for (const DiffGroup& group : groups) {
    if (group.rms <= 0) continue;
    lines[group.set].push_back(&group);
    low = std::min(low, group.rms);
    high = std::max(high, group.rms);
    last = std::max(last, group.layer);
  }
  if (lines.empty()) low = high = 1;
  const double bottom = std::log10(decade_above(low)) - 1, top = std::log10(decade_above(high));
  const double span = std::max(1.0, top - bottom);
  const auto x = [&](int64_t layer) {
    return kLeft + (kWidth - kLeft - kRight) * static_cast<double>(std::max<int64_t>(0, layer)) /
                       static_cast<double>(std::max<int64_t>(1, last));
  };
  const auto y = [&](double rms) {
    return kTop + (kHeight - kTop - kBottom) * (1 - (std::log10(rms) - bottom) / span);
  };
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  const auto decades = std::lround(span);  // both ends are whole powers of ten
  for (int64_t i = 0; i <= decades; ++i) {
    const double decade = bottom + static_cast<double>(i);
    const double at = y(std::pow(10.0, decade));
    svg += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">1e{:.0f}</text>\n",
        kLeft, kWidth - kRight, at, at, kLeft - 6, at + 4, decade);
  }
  svg += fmt::format(
      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">layer (0 to {})</text>\n"
      "<text x=\"14\" y=\"{}\" transform=\"rotate(-90 14 {})\" text-anchor=\"middle\">RMS "
      "difference</text>\n",
      (kLeft + kWidth - kRight) / 2, kHeight - 12, last, kHeight / 2, kHeight / 2);
  size_t index = 0;
  for (const auto& [set, points] : lines) {
    const char* colour = kColours[index % std::size(kColours)];
    std::string path_points;
    for (const DiffGroup* point : points) {
      path_points += fmt::format("{:.1f},{:.1f} ", x(point->layer), y(point->rms));
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n",
                         x(point->layer), y(point->rms), colour);
    }
    svg +=
        fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"/>\n", path_points, colour);
    svg += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>\n", kWidth - kRight + 12,
                       kTop + 16 * static_cast<double>(index + 1), colour, set);
    ++index;
  }
  return write_file_durably(Env::system(), path, svg + "</svg>\n", 0644);
}

}  // namespace chimera
