// `chimera receipt`: whether a statement is one that a daemon signed, and what it says.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "base/io/env.h"
#include "base/json/reader.h"
#include "base/statement/canonical.h"
#include "base/statement/statement.h"
#include "clients/keys/certificate.h"
#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

constexpr size_t kMaxFile = size_t{64} << 20;
constexpr std::string_view kReceipt = "receipt/1", kRevocation = "revocation/1";

Error error_of(const Status& status) {
  return {std::string(code_name(status.code())), status.message(), status.hint()};
}

/// The key that verifies statements of the daemon whose keys are in --server-key's file.
std::variant<StatementKey, Error> server_key(const po::variables_map& options) {
  std::string file;
  if (options.count("server-key") > 0) {
    file = options["server-key"].as<std::string>();
  } else if (const char* named = std::getenv("CHIMERA_SERVER_KEY"); named != nullptr) {
    file = named;
  }
  if (file.empty()) {
    return bad_usage("--server-key: missing (expected the daemon's public key)",
                     "or set CHIMERA_SERVER_KEY");
  }
  const auto read = keys::read_public(file);
  if (!read.ok()) return error_of(read.status());
  if (read->statement_key.empty()) {
    return Error{"invalid_argument",
                 file + ": found no statement-key (expected the key that verifies receipts)",
                 "it is older than receipts; on the server, name the .key file, which has both"};
  }
  const auto key = parse_statement_key(read->statement_key, file);
  if (!key.ok()) return error_of(key.status());
  return *key;
}

/// Whether the receipt is of the request in a file, as it was sent.
std::optional<Error> check_request(const std::string& file, const Json& stated) {
  const auto text = read_whole(file, wire::kMaxMessageBytes);
  if (const auto* error = std::get_if<Error>(&text)) return *error;
  const auto request = parse_json(std::get<std::string>(text));
  if (!request.ok()) return error_of(request.status().with_context(file));
  const std::string digest = digest_text(canonical_json(*request));
  if (stated.value("request", "") == digest) return std::nullopt;
  return Error{"permission_denied",
               fmt::format("{}: {} (expected {}, which the receipt is of)", file,
                           short_digest(digest), short_digest(stated.value("request", ""))),
               "it has to be the request as it was sent, its id and call as well"};
}

void show_receipt(const Output& out, const Json& stated) {
  const Json& provenance = stated["provenance"];
  const Json& usage = stated["usage"];
  std::string epochs;
  for (const Json& use : provenance["epochs"]) {
    epochs +=
        fmt::format("{}{}{}", epochs.empty() ? "" : ", ", use.value("epoch", uint64_t{0}),
                    epochs.empty() ? "" : fmt::format(" from token {}", use.value("from", 0)));
  }
  out.pairs({{"request", fmt::format("{} {} of {}", stated.value("call", ""),
                                     stated.value("id", ""), stated.value("client", ""))},
             {"time", stated.value("time", "")},
             {"tokens", fmt::format("{} and {}", usage.value("prompt_tokens", 0),
                                    usage.value("completion_tokens", 0))},
             {"composition", short_digest(provenance.value("composition", ""))},
             {"epochs", epochs}});
  std::vector<std::vector<std::string>> rows;
  const auto row = [&](std::string_view name, const Json& part) {
    rows.push_back({std::string(name), part.value("version", ""), percent(part.value("share", 0.0)),
                    std::to_string(part.value("rows", uint64_t{0}))});
  };
  for (const auto& [name, part] : provenance["modules"].items()) row(name, part);
  row("backbone", provenance["backbone"]);
  out.line("");
  out.table({"module", "version", "share", "rows"}, rows, {2, 3});
}

void show_revocation(const Output& out, const Json& stated) {
  const Json& memory = stated["memory"];
  const auto numbers = [](const Json& of) {
    return fmt::format("{}, then {}", of.value("before", uint64_t{0}),
                       of.value("after", uint64_t{0}));
  };
  out.pairs(
      {{"module", fmt::format("{} {}  {}", stated.value("module", ""), stated.value("version", ""),
                              short_digest(stated.value("digest", "")))},
       {"time", stated.value("time", "")},
       {"epoch", fmt::format("{}  {}", stated.value("epoch", uint64_t{0}),
                             short_digest(stated.value("composition", "")))},
       {"last pass",
        stated["last_pass"].is_null()
            ? "none used it"
            : fmt::format("{} of {}, {}", stated["last_pass"].value("number", uint64_t{0}),
                          stated.value("passes", uint64_t{0}),
                          stated["last_pass"].value("time", ""))},
       {"released", stated.value("released", false) ? "yes" : "NO, something still holds it"},
       {"memory", human_bytes(memory.value("bytes", 0.0))},
       {"mapped bytes", numbers(memory["mapped_bytes"])},
       {"mapped files", numbers(memory["mapped_files"])},
       {"descriptors", numbers(stated["descriptors"])}});
}

Outcome receipt(const Invocation& run) {
  if (run.arguments[0] != "verify") {
    return bad_usage(fmt::format("receipt: {} (expected verify)", run.arguments[0]),
                     "see: chimera receipt --help");
  }
  const std::string& file = run.arguments[1];
  const auto key = server_key(run.options);
  if (const auto* error = std::get_if<Error>(&key)) return *error;
  const auto text = read_whole(file, kMaxFile);
  if (const auto* error = std::get_if<Error>(&text)) return *error;
  const auto stated =
      verify_statement(std::get<std::string>(text), "", std::get<StatementKey>(key), file);
  if (!stated.ok()) return error_of(stated.status());
  const std::string kind = stated->value("chimera", "");
  if (kind != kReceipt && kind != kRevocation) {
    return Error{
        "data_corrupt",
        fmt::format("{}: states {} (expected {} or {})", file, kind, kReceipt, kRevocation),
        "a newer `chimera` may know it"};
  }
  if (run.options.count("request") > 0) {
    if (auto error = check_request(run.options["request"].as<std::string>(), *stated)) {
      return std::move(*error);
    }
  }
  if (run.out.json()) {
    run.out.object(*stated);
    return 0;
  }
  run.out.line(run.out.styled("verified", Style::kGood) + "  " + kind);
  if (kind == kReceipt) show_receipt(run.out, *stated);
  if (kind == kRevocation) show_revocation(run.out, *stated);
  return 0;
}

}  // namespace

std::optional<Error> check_new(const std::string& file) {
  if (access(file.c_str(), F_OK) != 0) return std::nullopt;
  return Error{"already_exists", file + ": is there already (expected a new file)",
               "choose another name"};
}

std::optional<Error> save_statement(const std::string& file, const std::string& text) {
  const Status status = write_file_durably(Env::system(), file, text + "\n", 0644);
  if (!status.ok()) return error_of(status);
  return std::nullopt;
}

void add_receipt_command(std::vector<Command>& commands) {
  commands.push_back({"receipt", "verify FILE", "whether the daemon signed it, what it says", 2, 2,
                      [](po::options_description& options) {
                        options.add_options()("request",
                                              po::value<std::string>()->value_name("FILE"),
                                              "a JSON of the request that it has to be of");
                      },
                      receipt});
}

}  // namespace chimera::cli
