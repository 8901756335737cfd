// capacity: the limits of a daemon. Each part is an option; --json prints one object for all.
//
//   --epochs   the bias of the first --module is changed --rate times a second under --clients
//              streams that use it: changes made per second, ms from call to answer (p50, p99),
//              inter-token ms of the streams quiet and meanwhile, epochs in use at most
//   --many     --count copies of the first --module, loaded by one apply: seconds of that, ms of
//              plan and bias; inter-token ms of requests that exclude all of them, as a multiple of
//              those of a daemon without modules, and of requests that use them: what they take
//              longer than with a few modules, as a multiple of the gate's arithmetic
//   --memory   copies of the first --module: bytes by the daemon's account and by the kernel's
//              (PSS), and what is left when they are unloaded
//   --loads    loads of modules never seen before: seconds of one, of seven by one apply, and of
//              one beside streams; inter-token ms of these quiet and meanwhile
//   --crowds   16, 64, 256 and 1,000 clients (up to --most), each with one request after another:
//              tokens per second, ms to the first token and between tokens, memory, threads and
//              descriptors of the daemon
//   --lasting  --requests short requests of --clients clients: memory of the daemon when the first
//              tenth of them is answered, and in the end
//   --prompts  prompts of --long tokens (or what the model can take): ms to the first token of
//              short ones beside them, inter-token ms of --clients streams quiet and meanwhile
#include "capacity/capacity.h"

#include <fmt/format.h>

#include <exception>
#include <filesystem>

#include "base/json/writer.h"
#include "bench.h"
#include "options.h"

namespace chimera::bench {
namespace {

struct Part {
  const char* option;
  const char* what;
  CapacityResult (*measure)(const CapacityOptions&);
};

constexpr Part kParts[] = {
    {"epochs", "changes of a bias per second under streams", measure_epochs},
    {"many", "what very many modules cost", measure_many},
    {"memory", "modules in the daemon's account and in the kernel's", measure_memory},
    {"loads", "how long loads take, and what streams notice", measure_loads},
    {"crowds", "16 to 1,000 clients at once", measure_crowds},
    {"lasting", "memory over very many short requests", measure_lasting},
    {"prompts", "short prompts and streams beside long prompts", measure_prompts},
};

int run(const CapacityOptions& o, const std::vector<const Part*>& parts) {
  Json all = Json::object();
  bool within = true;
  for (const Part* part : parts) {
    const CapacityResult result = part->measure(o);
    within = within && result.within;
    if (o.json) {
      all[part->option] = result.figures;
      continue;
    }
    fmt::print("{}: {}\n", part->option, part->what);
    for (const std::string& line : result.lines) fmt::print("  {}\n", line);
  }
  if (o.json) fmt::print("{}\n", write_json(all));
  return within ? 0 : 1;
}

}  // namespace

int run_capacity(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  CapacityOptions o;
  auto description = daemon_options(o.deployment);
  description.add_options()("clients", po::value(&o.clients)->default_value(16),
                            "streaming clients");
  description.add_options()("rate", po::value(&o.rate)->default_value(200.0),
                            "changes asked for per second");
  description.add_options()("seconds", po::value(&o.seconds)->default_value(20.0),
                            "length of a phase");
  description.add_options()("count", po::value(&o.count)->default_value(1024), "modules of --many");
  description.add_options()("long", po::value(&o.longest)->default_value(8000),
                            "tokens of a long prompt");
  description.add_options()("most", po::value(&o.most)->default_value(1000),
                            "clients of --crowds at most");
  description.add_options()("requests", po::value(&o.requests)->default_value(1'000'000),
                            "short requests of --lasting");
  description.add_options()("json", po::bool_switch(&o.json), "print figures as one JSON object");
  bool chosen[std::size(kParts)] = {};
  for (size_t i = 0; i < std::size(kParts); ++i)
    description.add_options()(kParts[i].option, po::bool_switch(&chosen[i]), kParts[i].what);
  if (const auto exit = parse(description, args)) return *exit;
  std::vector<const Part*> parts;
  for (size_t i = 0; i < std::size(kParts); ++i)
    if (chosen[i]) parts.push_back(&kParts[i]);
  if (parts.empty()) {
    fmt::print(stderr,
               "chimera-bench: capacity: found no part (expected --epochs, --many or another)\n");
    return 2;
  }
  o.deployment.max_sequences = o.clients;
  try {
    return run(o, parts);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: capacity: {}\n", error.what());
    return 1;
  }
}

}  // namespace chimera::bench
