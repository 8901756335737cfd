#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/utf8.h"
#include "clients/wire/ranges.h"
#include "commands.h"

namespace chimera::cli {

namespace po = boost::program_options;

Error bad_usage(std::string message, std::string hint) {
  Error error("invalid_argument", std::move(message), std::move(hint));
  error.usage = true;
  return error;
}

int exit_status(const Error& error) {
  if (error.usage) return kUsageStatus;
  const bool again = error.code == "unavailable" || error.code == "resource_exhausted";
  return again ? kTryAgainStatus : kFailedStatus;
}

void validate(boost::any& out, const std::vector<std::string>& values, Whole*, int) {
  po::validators::check_first_occurrence(out);
  const std::string& text = po::validators::get_single_string(values);
  Whole whole;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, whole.value);
  if (parsed.ec != std::errc() || parsed.ptr != end) throw po::invalid_option_value(text);
  out = whole;
}

std::optional<double> finite_number(std::string_view text) {
  double value = 0.0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  return whole && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<std::pair<std::string, double>> named_number(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0) return std::nullopt;
  const auto value = finite_number(text.substr(equals + 1));
  if (!value) return std::nullopt;
  return std::pair{std::string(text.substr(0, equals)), *value};
}

void validate(boost::any& out, const std::vector<std::string>& values, Real*, int) {
  po::validators::check_first_occurrence(out);
  const std::string& text = po::validators::get_single_string(values);
  const auto value = finite_number(text);
  if (!value) throw po::invalid_option_value(text);
  out = Real{*value};
}

std::optional<Error> check_text(std::string_view what, std::string_view text) {
  const auto at = find_invalid_utf8(text);
  if (!at) return std::nullopt;
  return bad_usage(fmt::format("{}: byte {} is not UTF-8 (expected UTF-8 text)", what, *at),
                   "convert it, for instance with iconv");
}

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  size_t start = 0;
  while (start < text.size()) {
    const size_t comma = std::min(text.find(',', start), text.size());
    if (comma > start) names.push_back(text.substr(start, comma - start));
    start = comma + 1;
  }
  return names;
}

void add_module_options(po::options_description& options) {
  auto add = options.add_options();
  add("modules", po::value<std::string>()->value_name("A,B"), "use these modules only");
  add("no-modules", po::bool_switch(), "use the backbone alone");
  add("exclude", po::value<std::string>()->value_name("A,B"), "do without these modules");
  add("adapters", po::value<std::string>()->value_name("A,B"), "add these adapters (kind lora)");
  add("bias", po::value<std::vector<std::string>>()->value_name("NAME=X"),
      "add X to the gate of module NAME (may be repeated)");
}

std::variant<wire::ModuleFilter, Error> module_filter(const po::variables_map& options) {
  wire::ModuleFilter filter;
  if (options.count("modules") > 0) {
    if (options["no-modules"].as<bool>()) {
      return bad_usage("--no-modules: found beside --modules (expected one of them)",
                       "--modules A,B uses the backbone and these modules");
    }
    filter.only = split_names(options["modules"].as<std::string>());
    if (filter.only->empty()) {
      return bad_usage("--modules: no name (expected A,B)", "--no-modules uses the backbone alone");
    }
  }
  if (options["no-modules"].as<bool>()) filter.only.emplace();
  if (options.count("exclude") > 0) {
    filter.exclude = split_names(options["exclude"].as<std::string>());
  }
  if (options.count("adapters") > 0) {
    filter.adapters = split_names(options["adapters"].as<std::string>());
  }
  if (options.count("bias") == 0) return filter;
  for (const auto& item : options["bias"].as<std::vector<std::string>>()) {
    const auto given = named_number(item);
    if (!given) {
      return bad_usage("--bias: " + item + " (expected NAME=NUMBER)",
                       "for instance --bias legal=0.5");
    }
    filter.bias[given->first] = given->second;
  }
  return filter;
}

std::variant<std::string, Error> read_whole(const std::string& file, size_t max_bytes) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) {
      return Error{"not_found", fmt::format("{}: {}", file, std::strerror(errno)),
                   "check the path"};
    }
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string text;
  std::string part(size_t{64} << 10, '\0');
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())) || in.gcount() > 0) {
    text.append(part, 0, static_cast<size_t>(in.gcount()));
    if (text.size() > max_bytes) {
      return Error{"invalid_argument",
                   fmt::format("{}: more than {} bytes (expected fewer)", file, max_bytes),
                   "is it the right file?"};
    }
  }
  if (in.bad() || (file != "-" && !in.eof())) {
    return Error{"invalid_argument", file + ": cannot be read (expected a file)", "check the path"};
  }
  return text;
}

std::variant<std::string, Error> text_argument(const Invocation& run, size_t index) {
  if (run.arguments[index] != "-") return run.arguments[index];
  auto text = read_whole("-", wire::kMaxMessageBytes);
  if (const auto* found = std::get_if<std::string>(&text)) {
    if (auto error = check_text("standard input", *found)) {
      error->usage = false;  // it is the file that is wrong
      return std::move(*error);
    }
  }
  return text;
}

std::string shares(const client::Provenance& provenance) {
  std::string text;
  for (const auto& [name, module] : provenance.modules) {
    text += fmt::format("{} {}, ", name, percent(module.share));
  }
  return text + "backbone " + percent(provenance.backbone_share);
}

}  // namespace chimera::cli
