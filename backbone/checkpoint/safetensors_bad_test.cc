// Files that the reader must refuse, each with a message that says what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/checkpoint/safetensors_image.h"
#include "base/io/fault_env.h"

namespace chimera {
namespace {

using testing::HasSubstr;

struct BadFile {
  std::string name;
  std::string bytes;
  std::string message;  // part of it
};

void add_bad_lengths(std::vector<BadFile>& out) {
  const std::string two = "{}";
  out.insert(out.end(),
             {{"empty", "", "0 bytes long"},
              {"seven_bytes", std::string(7, '\0'), "7 bytes long"},
              {"length_0", length_bytes(0), "length is 0"},
              {"length_0_with_text", length_bytes(0) + two, "length is 0"},
              {"length_1", length_bytes(1) + "{", "length is 1"},
              {"length_2_63", length_bytes(1ull << 63) + two, "9223372036854775808"},
              {"length_max", length_bytes(UINT64_MAX) + two, "18446744073709551615"},
              {"length_wraps_with_8", length_bytes(UINT64_MAX - 7) + two, "at most"},
              {"length_over_cap", length_bytes(100'000'001) + two, "at most 100000000"},
              {"length_at_cap_of_short_file", length_bytes(16u << 20) + two, "only 2 bytes follow"},
              {"length_beyond_file", length_bytes(3) + two, "only 2 bytes follow"},
              {"length_only", length_bytes(2), "only 0 bytes follow"}});
}

void add_bad_grammar(std::vector<BadFile>& out) {
  const std::string a = entry("a", "U8", "[1]", "[0,1]");
  out.insert(out.end(),
             {{"spaces_only", image("    "), "expected an object"},
              {"array", image("[]"), "expected an object"},
              {"string", image("\"a\""), "expected an object"},
              {"number", image("12"), "expected an object"},
              {"null", image("null"), "expected an object"},
              {"byte_order_mark", image("\xef\xbb\xbf{}"), "expected an object"},
              {"nul_padding", image(std::string("{}\0\0", 4)), "nothing but whitespace"},
              {"form_feed_padding", image("{}\f"), "nothing but whitespace"},
              {"trailing_text", image("{} x"), "nothing but whitespace"},
              {"second_object", image("{}{}"), "nothing but whitespace"},
              {"trailing_brace", image("{}}"), "nothing but whitespace"},
              {"open_object", image("{ "), "a string"},
              {"open_after_entry", image("{" + a, "x"), "',' or '}'"},
              {"trailing_comma", image("{" + a + ",}", "x"), "a string"},
              {"leading_comma", image("{," + a + "}", "x"), "a string"},
              {"no_comma", image("{" + a + " " + entry("b", "U8", "[0]", "[1,1]") + "}", "x"),
               "',' or '}'"},
              {"no_colon", image("{\"a\" {}}"), "':'"},
              {"unquoted_name", image("{a:{}}"), "a string"},
              {"single_quotes", image("{'a':{}}"), "a string"},
              {"comment", image("{/**/}"), "a string"},
              {"open_string", image("{\"a"), "closing quote"},
              {"control_in_string", image("{\"a\nb\":{}}"), "control byte"},
              {"bad_escape", image("{\"\\q\":{}}"), "escape sequence"},
              {"escape_at_end", image("{\"\\"), "escape sequence"},
              {"short_unicode_escape", image("{\"\\u12"), "four hex digits"},
              {"bad_unicode_escape", image("{\"\\u12g4\":{}}"), "four hex digits"},
              {"lone_high_surrogate", image("{\"\\ud800\":{}}"), "low surrogate"},
              {"high_surrogate_twice", image("{\"\\ud800\\ud800\":{}}"), "low surrogate"},
              {"lone_low_surrogate", image("{\"\\udc00\":{}}"), "lone surrogate"},
              {"nul_name", image("{\"a\\u0000b\":{}}"), "NUL"},
              {"raw_nul_name", image(std::string("{\"a\0b\":{}}", 10)), "control byte"},
              {"invalid_utf8", image("{\"\xff\":{}}"), "UTF-8"},
              {"overlong_utf8", image("{\"\xc0\x80\":{}}"), "UTF-8"},
              {"surrogate_utf8", image("{\"\xed\xa0\x80\":{}}"), "UTF-8"},
              {"beyond_unicode", image("{\"\xf4\x90\x80\x80\":{}}"), "UTF-8"},
              {"cut_utf8", image("{\"\xe4\xb8"), "UTF-8"},
              {"deep_arrays", image("{\"a\":" + std::string(100'000, '[')), "an object"},
              {"deep_objects",
               image("{" +
                     [] {
                       std::string deep;
                       for (int i = 0; i < 10'000; ++i) deep += "\"a\":{";
                       return deep;
                     }()),
               "unknown key"}});
}

void add_bad_entries(std::vector<BadFile>& out) {
  const auto one = [](const std::string& name, const std::string& text, const std::string& message,
                      const std::string& data = "x") {
    return BadFile{name, image("{" + text + "}", data), message};
  };
  const std::string a = entry("a", "U8", "[1]", "[0,1]");
  out.insert(
      out.end(),
      {one("entry_null", "\"a\":null", "an object"),
       one("entry_array", "\"a\":[]", "an object"),
       one("entry_empty", "\"a\":{}", "lacks dtype"),
       one("no_dtype", R"("a":{"shape":[1],"data_offsets":[0,1]})", "lacks dtype"),
       one("no_shape", R"("a":{"dtype":"U8","data_offsets":[0,1]})", "lacks shape"),
       one("no_offsets", R"("a":{"dtype":"U8","shape":[1]})", "lacks data_offsets"),
       one("unknown_key", R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1})",
           "unknown key \"x\""),
       one("key_case", R"("a":{"DType":"U8","shape":[1],"data_offsets":[0,1]})", "unknown key"),
       one("duplicate_dtype", R"("a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})",
           "duplicate key \"dtype\""),
       one("duplicate_by_escape",
           R"("a":{"dtype":"U8","shape":[1],"sh\u0061pe":[1],"data_offsets":[0,1]})",
           "duplicate key \"shape\""),
       one("duplicate_tensor", a + "," + a, "duplicate tensor name \"a\""),
       one("duplicate_empty_tensor",
           entry("a", "U8", "[0]", "[0,0]") + "," + entry("a", "U8", "[0]", "[0,0]"),
           "duplicate tensor name", ""),
       one("duplicate_tensor_by_escape", a + "," + entry("\\u0061", "U8", "[0]", "[0,0]"),
           "duplicate tensor name"),
       one("dtype_number", R"("a":{"dtype":8,"shape":[1],"data_offsets":[0,1]})", "a string"),
       one("dtype_unknown", entry("a", "Q7", "[1]", "[0,1]"), "dtype \"Q7\" is unknown"),
       one("dtype_case", entry("a", "u8", "[1]", "[0,1]"), "is unknown"),
       one("dtype_empty", entry("a", "", "[1]", "[0,1]"), "is unknown"),
       one("dtype_sub_byte", entry("a", "F4", "[3]", "[0,1]"), "dtype F4 is not supported"),
       one("shape_number", entry("a", "U8", "1", "[0,1]"), "array of dimensions"),
       one("shape_float", entry("a", "U8", "[1.0]", "[0,1]"), "without fraction"),
       one("shape_exponent", entry("a", "U8", "[1e0]", "[0,1]"), "without fraction"),
       one("shape_negative", entry("a", "U8", "[-1]", "[0,1]"), "non-negative"),
       one("shape_minus_zero", entry("a", "U8", "[-0]", "[0,0]"), "non-negative", ""),
       one("shape_plus", entry("a", "U8", "[+1]", "[0,1]"), "non-negative"),
       one("shape_leading_zero", entry("a", "U8", "[01]", "[0,1]"), "starts with a zero"),
       one("shape_hex", entry("a", "U8", "[0x1]", "[0,1]"), "',' or ']'"),
       one("shape_string", entry("a", "U8", "[\"1\"]", "[0,1]"), "non-negative"),
       one("shape_nested", entry("a", "U8", "[[1]]", "[0,1]"), "non-negative"),
       one("shape_trailing_comma", entry("a", "U8", "[1,]", "[0,1]"), "non-negative"),
       one("shape_2_63", entry("a", "U8", "[9223372036854775808]", "[0,1]"), "63 bits"),
       one("shape_2_64", entry("a", "U8", "[18446744073709551616]", "[0,1]"), "63 bits"),
       one("shape_2_64_plus_1", entry("a", "U8", "[18446744073709551617]", "[0,1]"), "63 bits"),
       one("rank_9", entry("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), "more than 8 dimensions"),
       one("shape_wraps_to_0", entry("a", "U8", "[4294967296,4294967296]", "[0,0]"), "2^63", ""),
       one("shape_wraps_to_1", entry("a", "U8", "[4294967297,4294967297]", "[0,1]"), "2^63"),
       one("size_wraps", entry("a", "F32", "[4611686018427387904]", "[0,0]"), "2^63", ""),
       one("wraps_beside_zero", entry("a", "U8", "[0,4294967296,4294967296]", "[0,0]"), "2^63", ""),
       one("offsets_one", entry("a", "U8", "[1]", "[0]"), "end offset"),
       one("offsets_three", entry("a", "U8", "[1]", "[0,1,1]"), "after two offsets"),
       one("offsets_object", entry("a", "U8", "[1]", "{}"), "two offsets"),
       one("offsets_float", entry("a", "U8", "[1]", "[0,1.0]"), "without fraction"),
       one("offsets_negative", entry("a", "U8", "[1]", "[-1,0]"), "non-negative"),
       one("offsets_2_63", entry("a", "U8", "[1]", "[0,9223372036854775808]"), "63 bits"),
       one("offsets_reversed", entry("a", "U8", "[1]", "[1,0]"), "reversed"),
       one("offsets_past_end", entry("a", "U8", "[2]", "[0,2]"),
           "past the data, which has 1 bytes"),
       one("offsets_far_past_end",
           entry("a", "U8", "[1]", "[9223372036854775806,9223372036854775807]"), "past the data"),
       one("too_few_bytes", entry("a", "F32", "[1]", "[0,1]"), "span 1 bytes, expected 4"),
       one("too_many_bytes", entry("a", "U8", "[1]", "[0,2]"), "span 2 bytes, expected 1", "xy")});
}

void add_bad_layouts(std::vector<BadFile>& out) {
  const auto two = [](const std::string& first, const std::string& second) {
    return "{" + entry("a", "U8", "[2]", first) + "," + entry("b", "U8", "[2]", second) + "}";
  };
  out.insert(
      out.end(),
      {{"hole", image(two("[0,2]", "[3,5]"), "12345"), "leaves a hole"},
       {"hole_in_front", image(two("[1,3]", "[3,5]"), "12345"), "leaves a hole"},
       {"overlap", image(two("[0,2]", "[1,3]"), "123"), "overlaps"},
       {"same_range", image(two("[0,2]", "[0,2]"), "12"), "overlaps"},
       {"empty_inside_another",
        image("{" + entry("a", "U8", "[2]", "[0,2]") + "," + entry("b", "U8", "[0]", "[1,1]") + "}",
              "12"),
        "overlaps"},
       {"data_left_over", image(two("[0,2]", "[2,4]"), "12345"), "the end of the file at 5"},
       {"data_without_tensors", image("{}", "x"), "the end of the file at 1"},
       {"empty_tensor_past_end", image("{" + entry("a", "U8", "[0]", "[1,1]") + "}"),
        "past the data"},
       {"empty_tensor_after_hole", image("{" + entry("a", "U8", "[0]", "[1,1]") + "}", "x"),
        "leaves a hole"},
       {"metadata_null", image(R"({"__metadata__":null})"), "an object of strings"},
       {"metadata_string", image(R"({"__metadata__":"x"})"), "an object of strings"},
       {"metadata_number", image(R"({"__metadata__":{"a":1}})"), "a string value"},
       {"metadata_nested", image(R"({"__metadata__":{"a":{}}})"), "a string value"},
       {"metadata_null_value", image(R"({"__metadata__":{"a":null}})"), "a string value"},
       {"metadata_duplicate_key", image(R"({"__metadata__":{"a":"","a":""}})"),
        "duplicate key \"a\""},
       {"metadata_twice", image(R"({"__metadata__":{},"__metadata__":{}})"), "duplicate key"},
       {"metadata_twice_by_escape", image(R"({"__metadata__":{},"\u005f_metadata__":{}})"),
        "duplicate key"},
       {"metadata_many",
        image("{\"__metadata__\":{" +
              [] {
                std::string many = "\"k\":\"\"";
                for (int i = 0; i < 5000; ++i) many += ",\"" + std::to_string(i) + "\":\"\"";
                return many;
              }() +
              "}}"),
        "more than 4096 entries"}});
}

std::vector<BadFile> bad_files() {
  std::vector<BadFile> files;
  add_bad_lengths(files);
  add_bad_grammar(files);
  add_bad_entries(files);
  add_bad_layouts(files);
  return files;
}

TEST_F(SafetensorsTest, RefusesEveryBadFile) {
  const auto files = bad_files();
  EXPECT_GE(files.size(), 60u);
  for (const BadFile& bad : files) {
    SCOPED_TRACE(bad.name);
    const auto parsed = parse(bad.bytes);
    ASSERT_FALSE(parsed.ok());
    EXPECT_THAT(parsed.status().message(), HasSubstr("model.st: "));
    EXPECT_THAT(parsed.status().message(), HasSubstr(bad.message));
    EXPECT_LT(parsed.status().message().size(), 600u);
    const Code expected = bad.name == "dtype_sub_byte" ? Code::kUnimplemented : Code::kDataCorrupt;
    EXPECT_EQ(parsed.status().code(), expected);
    put(bad.bytes);
    for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
      FaultEnv env;
      const auto opened = SafetensorsFile::open(path_, residency, env);
      ASSERT_FALSE(opened.ok());
      EXPECT_THAT(opened.status().message(), HasSubstr(path_ + ": "));
      EXPECT_THAT(opened.status().message(), HasSubstr(bad.message));
      EXPECT_EQ(env.open_fds(), 0);
    }
  }
}

}  // namespace
}  // namespace chimera
