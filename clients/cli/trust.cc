// Commands about who may ask and who asked: key, audit.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <charconv>
#include <ctime>

#include "base/json/writer.h"
#include "base/minisign/minisign.h"
#include "clients/keys/certificate.h"
#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

Error error_of(const Status& status) {
  return {std::string(code_name(status.code())), status.message(), status.hint()};
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && text.front() != '.' &&
         text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string_view::npos;
}

/// A pair to sign modules with: `chimera module sign` and minisign read it.
Outcome signing_key(const Invocation& run, const std::string& name, const std::string& dir) {
  const auto made = minisign::make_key();
  if (!made.ok()) return error_of(made.status());
  const std::string text = minisign::format_public_key(made->public_key());
  const Status status = keys::write_pair(dir, name, minisign::format_secret_key(*made), text);
  if (!status.ok()) return error_of(status);
  const std::string id = minisign::id_text(made->id);
  const std::string secret = fmt::format("{}/{}.key", dir, name);
  const std::string open = fmt::format("{}/{}.pub", dir, name);
  if (run.out.json()) {
    run.out.object({{"name", name}, {"key", secret}, {"pub", open}, {"id", id}});
    return 0;
  }
  run.out.line(fmt::format("{}  secret: signs modules", secret));
  run.out.line(fmt::format("{}  public: for trust.keys of deployments (key {})", open, id));
  return 0;
}

Outcome key(const Invocation& run) {
  if (run.arguments[0] != "new") {
    return bad_usage(fmt::format("key: {} (expected new)", run.arguments[0]),
                     "see: chimera key --help");
  }
  const std::string& name = run.arguments[1];
  if (!is_name(name)) {
    return bad_usage(fmt::format("key: name {} (expected 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-', "
                                 "no '.' first)",
                                 name),
                     "it becomes the name of files, and of the client");
  }
  const std::string dir = run.options["out"].as<std::string>();
  const std::string use = run.options["for"].as<std::string>();
  if (use == "modules") return signing_key(run, name, dir);
  if (use != "connections") {
    return bad_usage(fmt::format("--for: {} (expected connections or modules)", use),
                     "see: chimera key --help");
  }
  const auto made = keys::make_certificate(name);
  if (!made.ok()) return error_of(made.status());
  const Status status = keys::write_certificate(*made, dir);
  if (!status.ok()) return error_of(status);
  const std::string secret = fmt::format("{}/{}.key", dir, name);
  const std::string open = fmt::format("{}/{}.pub", dir, name);
  if (run.out.json()) {
    run.out.object(
        {{"name", name}, {"key", secret}, {"pub", open}, {"public_key", made->public_key}});
    return 0;
  }
  run.out.line(fmt::format("{}  secret: stays where it is", secret));
  run.out.line(fmt::format("{}  public: for the others", open));
  run.out.line(fmt::format("public_key: \"{}\"", made->public_key));
  return 0;
}

/// "90", "2h", "7d" ago; "2026-11-27", "2026-11-27T10:00:00Z". Seconds of UTC.
std::optional<int64_t> moment(const std::string& text) {
  int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, count);
  if (read.ec == std::errc() && count >= 0 && end - read.ptr == 1) {
    const std::string_view units = "smhd";
    constexpr int64_t kSeconds[] = {1, 60, 3600, 86400};
    const size_t unit = units.find(*read.ptr);
    if (unit == std::string_view::npos || count > 1'000'000) return std::nullopt;
    return std::max<int64_t>(0, std::time(nullptr) - count * kSeconds[unit]);
  }
  for (const char* format : {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"}) {
    std::tm tm{};
    const char* rest = ::strptime(text.c_str(), format, &tm);
    if (rest != nullptr && *rest == '\0') return ::timegm(&tm);
  }
  return std::nullopt;
}

Outcome audit(const Invocation& run) {
  wire::Audit call;
  if (run.options.count("since") > 0) {
    auto since = since_of(run.options);
    if (auto* error = std::get_if<Error>(&since)) return std::move(*error);
    call.since = std::get<int64_t>(since);
  }
  if (run.options.count("limit") > 0) {
    call.limit = static_cast<int64_t>(run.options["limit"].as<Whole>().value);
  }
  const auto event = run.client.call(call, kAnswerWait);
  if (!event.ok()) return event.error();
  if (run.out.json()) {
    for (const Json& entry : event->body["entries"]) run.out.object(entry);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& entry : event->body["entries"]) {
    const auto before = entry.value("epoch_before", uint64_t{0});
    const auto after = entry.value("epoch_after", uint64_t{0});
    rows.push_back({entry.value("time", "").substr(0, 19), entry.value("principal", ""),
                    entry.value("call", ""), entry.value("result", ""),
                    before == after ? std::to_string(after) : fmt::format("{}→{}", before, after),
                    write_json(entry["arguments"])});
  }
  run.out.table({"time (UTC)", "who", "call", "result", "epoch", "arguments"}, rows);
  return 0;
}

}  // namespace

std::variant<int64_t, Error> since_of(const po::variables_map& options) {
  const auto& text = options["since"].as<std::string>();
  const auto since = moment(text);
  if (since && *since >= 0) return *since;
  return bad_usage(fmt::format("--since: {} (expected 30m, 2h, 7d, a day or a moment)", text),
                   "for instance --since 2026-11-27T10:00:00Z");
}

void add_trust_commands(std::vector<Command>& commands) {
  commands.push_back(
      {"key", "new NAME [--out DIR] [--for USE]", "make a pair of keys", 2, 2,
       [](po::options_description& options) {
         options.add_options()("out",
                               po::value<std::string>()->value_name("DIR")->default_value("."),
                               "where NAME.key and NAME.pub go")(
             "for", po::value<std::string>()->value_name("USE")->default_value("connections"),
             "connections: of clients and daemons; modules: to sign with");
       },
       key});
  commands.push_back({"audit", "[--since T] [--limit N]", "who asked for what", 0, 0,
                      [](po::options_description& options) {
                        auto add = options.add_options();
                        add("since", po::value<std::string>()->value_name("T"),
                            "30m, 2h, 7d ago, or a moment of UTC: 2026-11-27T10:00:00Z");
                        add("limit", po::value<Whole>()->value_name("N"), "the newest N (100)");
                      },
                      audit});
}

}  // namespace chimera::cli
