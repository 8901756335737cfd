// tokenizer: MB per CPU second from text to ids and back, on the text a user gives, one thread.
//
// The text is cut into equal slices. Each slice is encoded once, with a tokenizer that saw only the
// slices before it, so what is measured is new text on a warm process, as in a daemon; the first
// slice is reported by itself (cold caches). References on the same slices: memcpy, the ceiling of
// anything that reads and writes the text; and one search of GPT-2's pre-tokenizer expression per
// word, which is the floor of any tokenizer that splits by regular expression.
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "base/json/reader.h"
#include "bench.h"
#include "options.h"
#include "stats.h"
#include "text/tokenizer/regex/regex.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera::bench {
namespace {

constexpr const char* kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct Options {
  std::string tokenizer;
  std::string text;
  size_t megabytes = 32;
  size_t slices = 9;
};

/// Lines that are JSON objects with a "text" contribute that, all others themselves.
std::string read_text(std::istream& in, size_t limit) {
  std::string text;
  std::string line;
  while (text.size() < limit && std::getline(in, line)) {
    if (!line.empty() && line.front() == '{') {
      const auto object = parse_json(line, {.duplicates = DuplicateKeys::kLastCounts});
      if (const std::string* inner = object.ok() ? (*object)["text"].string() : nullptr) {
        text += *inner + "\n";
        continue;
      }
    }
    text += line + "\n";
  }
  return text;
}

/// Documents as a server meets them: parts of `text` of about 4 KiB that end at a line.
std::vector<std::vector<std::string_view>> cut(std::string_view text, size_t slices) {
  std::vector<std::vector<std::string_view>> out(slices);
  const size_t each = text.size() / slices + 1;
  for (size_t pos = 0; pos < text.size();) {
    const size_t newline = text.find('\n', pos + 4096);
    const size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
    out[pos / each].push_back(text.substr(pos, end - pos));
    pos = end;
  }
  return out;
}

size_t bytes_of(const std::vector<std::string_view>& documents) {
  size_t n = 0;
  for (const std::string_view d : documents) n += d.size();
  return n;
}

/// MB/s of `work` over each slice.
std::vector<double> rates(const std::vector<std::vector<std::string_view>>& slices,
                          const std::function<void(std::string_view)>& work) {
  std::vector<double> out;
  for (const auto& documents : slices) {
    if (documents.empty()) continue;
    const double start = cpu_s();
    for (const std::string_view document : documents) work(document);
    out.push_back(static_cast<double>(bytes_of(documents)) / (cpu_s() - start) / 1e6);
  }
  return out;
}

void print(const char* what, const std::vector<double>& samples) {
  const Spread s = spread(samples);
  fmt::print("{:<34}{:>10.1f}{:>10.1f}{:>10.1f}\n", what, s.median, s.min, s.max);
}

int measure(const Tokenizer& tokenizer, const std::shared_ptr<const Tokenizer>& shared,
            std::string_view text, size_t slice_count) {
  const auto slices = cut(text, slice_count);
  std::vector<std::vector<int32_t>> ids;
  bool failed = false;
  std::vector<double> encode = rates(slices, [&](std::string_view document) {
    auto result = tokenizer.encode(document, {});
    failed = failed || !result.ok();
    ids.push_back(result.ok() ? std::move(*result) : std::vector<int32_t>());
  });
  if (failed) {
    fmt::print(stderr, "chimera-bench: the tokenizer refuses part of the text\n");
    return 1;
  }
  size_t tokens = 0;
  for (const auto& d : ids) tokens += d.size();
  fmt::print("{:.1f} MB in {} slices, {} tokens, {:.2f} bytes per token\n",
             static_cast<double>(text.size()) / 1e6, slices.size(), tokens,
             static_cast<double>(text.size()) / static_cast<double>(tokens));
  fmt::print("{:<34}{:>10}{:>10}{:>10}\n", "MB per CPU second, one thread", "median", "min", "max");
  print("encode, first slice (cold)", {encode.front()});
  encode.erase(encode.begin());
  print("encode, new text", encode);
  size_t next = 0;
  print("decode", rates(slices, [&](std::string_view) {
          failed = failed || !tokenizer.decode(ids[next++], false).ok();
        }));
  next = 0;
  size_t streamed = 0;
  print("decode, streamed token by token", rates(slices, [&](std::string_view) {
          StreamDecoder stream(shared, false);
          for (const int32_t id : ids[next]) streamed += stream.push(id).size();
          streamed += stream.flush().size();
          ++next;
        }));
  const auto regex = tokenizer::Regex::compile(kGpt2);
  size_t words = 0;
  print("reference: GPT-2 expression alone", rates(slices, [&](std::string_view document) {
          failed =
              failed || !regex->for_each_match(document, [&](size_t, size_t) { ++words; }).ok();
        }));
  std::string copy(text.size(), '\0');
  print("reference: memcpy", rates(slices, [&](std::string_view document) {
          std::memcpy(copy.data() + (document.data() - text.data()), document.data(),
                      document.size());
        }));
  return failed || words == 0 || streamed == 0 || copy != text ? 1 : 0;
}

}  // namespace

int run_tokenizer(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  Options o;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("tokenizer", po::value(&o.tokenizer)->required(), "tokenizer.json");
  d.add_options()("text", po::value(&o.text)->required(),
                  "text file, plain or lines of JSON with \"text\"; - for standard input");
  d.add_options()("mb", po::value(&o.megabytes)->default_value(o.megabytes), "megabytes to read");
  d.add_options()("slices", po::value(&o.slices)->default_value(o.slices),
                  "samples of each figure");
  if (const auto status = parse(d, args)) return *status;
  std::ifstream file(o.text);
  const std::string text =
      read_text(o.text == "-" ? std::cin : file, o.megabytes * size_t{1'000'000});
  if (text.empty() || o.slices < 2) {
    fmt::print(stderr, "chimera-bench: '{}' holds no text, or fewer than 2 slices\n", o.text);
    return 2;
  }
  const double start = now_s();
  const auto tokenizer = Tokenizer::load(o.tokenizer);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "chimera-bench: {}\n", tokenizer.status().to_string());
    return 1;
  }
  fmt::print("{}: {} tokens, loaded in {:.0f} ms\n", o.tokenizer, (*tokenizer)->vocab_size(),
             (now_s() - start) * 1e3);
  return measure(**tokenizer, *tokenizer, text, o.slices);
}

}  // namespace chimera::bench
