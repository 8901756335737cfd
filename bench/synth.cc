// synth: a checkpoint of random weights in the shape that a file describes, as a Hugging Face
// directory or as one GGUF file (which llama.cpp reads as well, so that both run the same).
//
// Speed depends on shapes and formats, not on the numbers; routing over random weights is spread
// evenly, as that of a trained model nearly is. See bench/README.md.
#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench.h"
#include "bench/synth/checkpoint.h"
#include "stats.h"

namespace chimera::bench {
namespace {

struct SynthOptions {
  std::string shape, out, type;
  bool gguf = false;
};

Status write(const SynthOptions& o) {
  const auto type = kStoredTypeNames.find(o.type);
  if (!type)
    return {Code::kInvalidArgument,
            fmt::format("--type: found {} (expected {})", o.type, kStoredTypeNames.choices())};
  const Result<Shape> shape = read_shape(o.shape);
  if (!shape.ok()) return shape.status();
  return o.gguf ? write_synthetic_gguf(*shape, *type, o.out)
                : write_synthetic(*shape, *type, o.out);
}

uint64_t bytes_of(const std::string& path) {
  namespace fs = std::filesystem;
  if (fs::is_regular_file(path)) return fs::file_size(path);
  uint64_t bytes = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) bytes += entry.file_size();
  return bytes;
}

}  // namespace

int run_synth(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  SynthOptions o;
  po::options_description d("Usage: chimera-bench synth SHAPE.yaml --out PATH");
  d.add_options()("help,h", "this text");
  d.add_options()("shape", po::value(&o.shape)->required(), "what bench/shapes/ holds");
  d.add_options()("out", po::value(&o.out)->required(), "new directory, or file with --gguf");
  d.add_options()(
      "type", po::value(&o.type)->default_value("bf16"),
      fmt::format("of the weights: {} (blocks: with --gguf)", kStoredTypeNames.choices()).c_str());
  d.add_options()("gguf", po::bool_switch(&o.gguf), "one GGUF file");
  po::positional_options_description positional;
  positional.add("shape", 1);
  try {
    po::variables_map vm;
    po::store(po::command_line_parser(args).options(d).positional(positional).run(), vm);
    if (vm.count("help") != 0) {
      std::cout << d;
      return 0;
    }
    po::notify(vm);
    const double start = now_s();
    if (const Status status = write(o); !status.ok()) {
      fmt::print(stderr, "chimera-bench: synth: {}\n", status.to_string());
      return 1;
    }
    fmt::print("{}: {:.2f} GB in {:.1f} s\n", o.out, static_cast<double>(bytes_of(o.out)) / 1e9,
               now_s() - start);
  } catch (const po::error& error) {
    std::cerr << "chimera-bench: " << error.what() << "\n" << d;
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: synth: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
