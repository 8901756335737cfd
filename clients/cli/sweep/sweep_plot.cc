// The picture of a sweep: two panels over λ, bits per byte above, the module's share below; where
// the answer has the trait, the ground is shaded.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>

#include "sweep/sweep.h"

namespace chimera::cli {
namespace {

constexpr double kWidth = 800, kLeft = 70, kRight = 20;
constexpr double kPlotWidth = kWidth - kLeft - kRight;
constexpr const char* kPlotColours[] = {"#0072b2", "#d55e00"};

struct Panel {
  double top, height;
  const char* title;
  double low, high;

  double y(double value) const { return top + height * (1 - (value - low) / (high - low)); }
};

struct Axis {
  double from, to;
  double x(double lambda) const { return kLeft + kPlotWidth * (lambda - from) / (to - from); }
};

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     what);
}

/// Names of people's own may hold what XML does not.
std::string escaped(const std::string& from) {
  std::string out;
  for (const char c : harmless(from)) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

std::string frame(const Panel& panel, const Axis& axis) {
  std::string out = fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>\n", kLeft,
      panel.top, kPlotWidth, panel.height);
  constexpr int kTicks = 4;
  for (int i = 0; i <= kTicks; ++i) {
    const double value = panel.low + (panel.high - panel.low) * i / kTicks;
    out += text(kLeft - 6, panel.y(value) + 4, "end", fmt::format("{:.3f}", value));
    const double lambda = axis.from + (axis.to - axis.from) * i / kTicks;
    out +=
        text(axis.x(lambda), panel.top + panel.height + 16, "middle", fmt::format("{:g}", lambda));
  }
  return out + text(kLeft + 8, panel.top + 16, "start", panel.title);
}

template <class Value>
std::string curve(const SweepReport& report, const Panel& panel, const Axis& axis,
                  const char* colour, const Value& value) {
  std::string points, dots;
  for (const SweepStep& step : report.steps) {
    const double x = axis.x(step.lambda), y = panel.y(value(step));
    points += fmt::format("{:.1f},{:.1f} ", x, y);
    dots +=
        fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>\n", x, y, colour);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"/>\n", points, colour) +
         dots;
}

/// From each step that has the trait half way to its neighbours.
std::string shades(const SweepReport& report, const Axis& axis, double top, double bottom) {
  std::string out;
  const auto& steps = report.steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!steps[i].trait.value_or(false)) continue;
    const double begin = i == 0 ? steps[i].lambda : (steps[i - 1].lambda + steps[i].lambda) / 2;
    const double end =
        i + 1 == steps.size() ? steps[i].lambda : (steps[i].lambda + steps[i + 1].lambda) / 2;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"#f0e442\" "
        "fill-opacity=\"0.35\"/>\n",
        axis.x(begin), top, axis.x(end) - axis.x(begin), bottom - top);
  }
  return out;
}

std::string marks(const SweepReport& report, const Axis& axis, double top, double bottom) {
  std::string out;
  for (const SweepThreshold& threshold : report.thresholds) {
    const double x = axis.x(threshold.at());
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#333\" "
        "stroke-dasharray=\"4 3\"/>\n",
        x, top, bottom);
    out +=
        text(x + 4, threshold.of_trait ? bottom - 8 : bottom - 24, "start",
             fmt::format("{} {:.4f}", threshold.of_trait ? "trait" : "steepest", threshold.at()));
  }
  return out;
}

}  // namespace

std::optional<Error> write_sweep_plot(const SweepReport& report, const SweepRange& range,
                                      const std::string& module, const std::string& path) {
  const Axis axis{range.from, range.to};
  const auto [least, most] =
      std::minmax_element(report.steps.begin(), report.steps.end(),
                          [](const auto& a, const auto& b) { return a.bits < b.bits; });
  // A flat line stands in the middle.
  const double margin = std::max((most->bits - least->bits) * 0.05, 1e-3);
  const Panel bits{20, 260, "bits per byte", least->bits - margin, most->bits + margin};
  const Panel share{330, 160, "share of the gate", 0.0, 1.0};
  const double bottom = share.top + share.height;
  const auto share_of = [&](const SweepStep& step) {
    const auto at = step.shares.find(module);
    return at == step.shares.end() ? 0.0 : at->second;
  };
  const double height = bottom + 50;
  const std::string svg =
      fmt::format(
          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
          "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
          "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
          kWidth, height) +
      shades(report, axis, bits.top, bottom) + frame(bits, axis) + frame(share, axis) +
      curve(report, bits, axis, kPlotColours[0], [](const SweepStep& step) { return step.bits; }) +
      curve(report, share, axis, kPlotColours[1], share_of) +
      marks(report, axis, bits.top, bottom) +
      text(kLeft + kPlotWidth / 2, height - 12, "middle",
           fmt::format("λ of {} in {}", escaped(range.parent), escaped(module))) +
      "</svg>\n";
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << svg;
  out.close();
  if (out) return std::nullopt;
  return Error("unavailable", fmt::format("{}: {}", path, std::strerror(errno)),
               "check the path and the space that is left");
}

}  // namespace chimera::cli
