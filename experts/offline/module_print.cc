#include "experts/offline/module_print.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"

namespace chimera {
namespace {

constexpr size_t kColumns = 80;

/// 12345 becomes "12.3 kB".
std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 1000.0 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string human_count(double count) {
  if (count < 1e6) return fmt::format("{:.0f}", count);
  if (count < 1e9) return fmt::format("{:.1f} million", count / 1e6);
  return fmt::format("{:.1f} billion", count / 1e9);
}

bool holds_bytes(const std::string& key) {
  return key == "bytes" || key == "memory" || key == "shared_bytes";
}
bool holds_count(const std::string& key) { return key.ends_with("parameters"); }

std::string human_value(const std::string& key, const Json& value) {
  if (const auto number = value.number()) {
    if (holds_bytes(key)) return human_bytes(*number);
    if (holds_count(key)) return human_count(*number);
  }
  if (const std::string* word = value.string()) return *word;
  if (const auto flag = value.boolean()) return *flag ? "yes" : "no";
  std::string text;
  if (value.is_array()) {
    for (const Json& item : value) text += (text.empty() ? "" : ", ") + human_value(key, item);
  } else if (value.is_object()) {
    for (const auto& [name, item] : value.items()) {
      const std::string& unit = holds_bytes(key) ? key : name;
      text += (text.empty() ? "" : ", ") + name + " " + human_value(unit, item);
    }
  } else {
    text = write_json(value);
  }
  return text;
}

/// Appends `value`, broken between words, behind a label that takes `indent` columns. A word that
/// fits no line at that indent (a digest) starts a line near the margin, so that it stays whole.
void append_wrapped(std::string& out, const std::string& value, size_t indent) {
  size_t column = indent;
  for (size_t begin = 0; begin < value.size();) {
    size_t end = std::min(value.find(' ', begin), value.size());
    const size_t length = end - begin;
    const size_t space = column == indent ? 0 : 1;
    if (column + space + length > kColumns) {
      const size_t start = indent + length > kColumns ? 2 : indent;
      while (!out.empty() && out.back() == ' ') out.pop_back();
      out += '\n' + std::string(start, ' ');
      column = start;
    } else if (space == 1) {
      out += ' ';
      ++column;
    }
    out += value.substr(begin, length);
    column += length;
    begin = std::min(end + 1, value.size());
  }
}

}  // namespace

std::string report_text(const Json& report) {
  size_t width = 0;
  for (const auto& [key, value] : report.items()) width = std::max(width, key.size());
  std::string out;
  for (const auto& [key, value] : report.items()) {
    std::string label = key;
    std::replace(label.begin(), label.end(), '_', ' ');
    out += fmt::format("{:<{}}  ", label, width);
    append_wrapped(out, human_value(key, value), width + 2);
    out += '\n';
  }
  return out;
}

void print_report(const Json& report, bool json) {
  if (json) {
    fmt::print("{}\n", write_json(report));
  } else {
    fmt::print("{}", report_text(report));
  }
}

}  // namespace chimera
