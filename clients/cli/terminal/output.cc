#include "terminal/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/json/writer.h"
#include "base/standard_output.h"

namespace chimera::cli {
namespace {

constexpr size_t kLineWidth = 80;
constexpr std::string_view kGap = "  ";

bool is_terminal(int fd) { return isatty(fd) == 1; }

/// `text` cut to `columns` characters, with an ellipsis where something is missing.
std::string cut(const std::string& text, size_t columns) {
  if (width(text) <= columns) return text;
  std::string out;
  size_t used = 0;
  for (const char c : text) {
    const bool starts = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (starts && ++used >= std::max<size_t>(columns, 1)) break;
    out += c;
  }
  return out + "…";
}

std::string padded(const std::string& cell, size_t columns, bool right) {
  const std::string space(columns - std::min(columns, width(cell)), ' ');
  return right ? space + cell : cell + space;
}

}  // namespace

Output::Output(bool json)
    : json_(json),
      terminal_(is_terminal(STDOUT_FILENO)),
      error_terminal_(is_terminal(STDERR_FILENO)) {}

bool Output::lost() const { return standard_output_lost(); }

void Output::object(const Json& value) const { line(write_json(value)); }

void Output::line(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

void Output::stream(std::string_view text) const {
  raw(terminal_ ? harmless(text) : std::string(text));
}

void Output::raw(std::string_view bytes) const {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  std::fflush(stdout);
}

bool Output::coloured() const { return terminal_ && std::getenv("NO_COLOR") == nullptr; }

std::string Output::styled(std::string_view text, Style style) const {
  if (!coloured() || style == Style::kPlain) return std::string(text);
  const char* code = style == Style::kBold   ? "1"
                     : style == Style::kDim  ? "2"
                     : style == Style::kGood ? "32"
                                             : "31";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

void Output::table(const std::vector<std::string>& header,
                   const std::vector<std::vector<std::string>>& rows,
                   const std::vector<size_t>& right) const {
  std::vector<size_t> widths;
  for (const auto& name : header) widths.push_back(width(name));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  const auto print = [&](const std::vector<std::string>& row, Style style) {
    std::string text;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      const bool to_right = std::find(right.begin(), right.end(), i) != right.end();
      const size_t used = width(text);
      const size_t room = kLineWidth > used + 8 ? kLineWidth - used : 8;
      if (last && !to_right) {
        text += terminal_ ? cut(row[i], room) : row[i];
      } else {
        text += padded(row[i], widths[i], to_right);
        if (!last) text += kGap;
      }
    }
    line(styled(text, style));
  };
  print(header, Style::kBold);
  for (const auto& row : rows) print(row, Style::kPlain);
}

void Output::pairs(const std::vector<std::pair<std::string, std::string>>& pairs) const {
  size_t widest = 0;
  for (const auto& [name, value] : pairs) widest = std::max(widest, width(name));
  for (const auto& [name, value] : pairs) {
    line(styled(padded(name, widest, /*right=*/false), Style::kBold) + std::string(kGap) + value);
  }
}

void print_error(const wire::Error& error, bool json) {
  if (json) {
    const Json object = {
        {"event", "error"}, {"code", error.code}, {"message", error.message}, {"hint", error.hint}};
    std::fprintf(stderr, "%s\n", write_json(object).c_str());
    return;
  }
  std::string text = "chimera: " + error.message;
  if (!error.hint.empty()) text += ". " + error.hint;
  text = harmless(text);
  std::fprintf(stderr, "%s\n", text.c_str());
}

size_t width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string harmless(std::string_view text) {
  std::string out(text);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    // U+0080..U+009F are control characters too, two bytes each in UTF-8.
    const bool c1 =
        byte == 0xC2 && i + 1 < out.size() && static_cast<unsigned char>(out[i + 1]) < 0xA0;
    if (control) out[i] = '?';
    if (c1) out.replace(i, 2, "?");
  }
  return out;
}

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024.0 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} {}", bytes, kUnits[unit])
                   : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string percent(double fraction) { return fmt::format("{:.1f} %", fraction * 100.0); }

std::string short_digest(std::string_view digest) {
  const size_t colon = digest.find(':');
  const size_t start = colon == std::string_view::npos ? 0 : colon + 1;
  return std::string(digest.substr(0, start + 12));
}

std::string bar(double fraction, int cells) {
  std::string out;
  const auto full = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * cells));
  for (int i = 0; i < full; ++i) out += "█";
  return out;
}

}  // namespace chimera::cli
