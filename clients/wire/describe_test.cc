// The documents of the protocol are what the descriptions say, and say what the decoder does.
// CHIMERA_UPDATE=1 writes them anew.
#include "clients/wire/describe.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/json/writer.h"

namespace chimera::wire {
namespace {

const std::string kClients = CHIMERA_SOURCE_DIR "/clients";
constexpr std::string_view kBegin = "<!-- fields: written from clients/wire/calls.h -->\n";
constexpr std::string_view kEnd = "<!-- end of fields -->\n";

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void expect_file(const std::string& path, const std::string& wanted) {
  if (std::getenv("CHIMERA_UPDATE") != nullptr) std::ofstream(path) << wanted;
  EXPECT_EQ(read(path), wanted) << "CHIMERA_UPDATE=1 writes " << path << " anew";
}

TEST(ProtocolDocuments, TablesAreThoseOfTheDescriptions) {
  const std::string path = kClients + "/PROTOCOL.md";
  std::string text = read(path);
  const size_t begin = text.find(kBegin);
  const size_t end = text.find(kEnd);
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  text.replace(begin + kBegin.size(), end - begin - kBegin.size(), protocol_tables() + "\n");
  expect_file(path, text);
}

TEST(ProtocolDocuments, SchemaIsThatOfTheDescriptions) {
  expect_file(kClients + "/chimera-1.schema.json",
              write_json(protocol_schema(), {.indent = 2}) + "\n");
}

TEST(ProtocolDocuments, EveryCallIsDescribedAndDefaultsAreSentAndTaken) {
  for (size_t i = 0; i < kCalls.size(); ++i) {
    EXPECT_EQ(call_name(empty_call(i)), kCalls[i].name);
    EXPECT_EQ(endpoint_of(empty_call(i)), kCalls[i].endpoint);
    for (const FieldDoc& field : fields_of(i)) {
      EXPECT_FALSE(field.meaning.empty()) << kCalls[i].name << '.' << field.name;
      EXPECT_FALSE(field.values.empty()) << kCalls[i].name << '.' << field.name;
    }
  }
}

// What the daemon takes and refuses, the schema takes and refuses: the seeds of the fuzz target,
// and for each call a request with a field that nobody knows.
TEST(ProtocolDocuments, SchemaAgreesWithTheDecoder) {
  const std::string corpus = CHIMERA_SOURCE_DIR "/tests/fuzz/corpus/wire";
  std::string pattern = std::filesystem::temp_directory_path() / "chimera-wire-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  size_t good = 0;
  const auto put = [&](const std::string& name, const std::string& text) {
    bool taken = false;
    for (const Endpoint endpoint : {Endpoint::kServe, Endpoint::kControl}) {
      std::string id;
      const auto decoded = decode_request(text, endpoint, &id);
      taken = taken || std::holds_alternative<Request>(decoded);
    }
    good += taken ? 1 : 0;
    std::ofstream(pattern + "/" + name + (taken ? ".good" : ".bad")) << text;
  };
  for (const auto& file : std::filesystem::directory_iterator(corpus)) {
    if (file.path().extension() == ".json") put(file.path().stem(), read(file.path()));
  }
  for (size_t i = 0; i < kCalls.size(); ++i) {
    const std::string call(kCalls[i].name);
    put("unknown-" + std::to_string(i), R"({"id":"a","call":")" + call + R"(","no_such_field":1})");
  }
  put("range", R"({"id":"a","call":"generate","prompt":"x","top_p":0})");
  put("both", R"({"id":"a","call":"generate","prompt":"x","tokens":[1]})");
  put("neither", R"({"id":"a","call":"score"})");
  put("trace",
      R"({"id":"a","call":"info","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})");
  put("no_trace",
      R"({"id":"a","call":"info","traceparent":"00-00000000000000000000000000000000-00f067aa0ba902b7-01"})");
  put("pooling", R"({"id":"a","call":"embed","text":"x","pooling":"first"})");
  put("required", R"({"id":"a","call":"bias","name":"legal"})");
  put("in_flight", R"({"id":"a","call":"load","path":"/m","in_flight":"stay"})");
  EXPECT_GE(good, 20u);
  std::ofstream(pattern + "/check.py") << R"(
import glob, json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
wrong = [f for f in sorted(glob.glob(sys.argv[2] + "/*.good") + glob.glob(sys.argv[2] + "/*.bad"))
         if validator.is_valid(json.load(open(f))) != f.endswith(".good")]
print("schema and decoder differ:", wrong) if wrong else None
sys.exit(bool(wrong))
)";
  const std::string command =
      "/usr/bin/python3 " + pattern + "/check.py " + kClients + "/chimera-1.schema.json " + pattern;
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::filesystem::remove_all(pattern);
}

}  // namespace
}  // namespace chimera::wire
