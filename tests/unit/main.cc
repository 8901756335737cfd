// main() of every unit test program. A program may hold the tests of several sources
// (cmake/Room.cmake);
// `--source=history_test.cc` runs those of one. A name that no test has is an error: a CTest entry
// that runs nothing would pass for ever.
#include <cstdio>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace {

constexpr std::string_view kOption = "--source=";

/// Whether `path`, as the compiler wrote it down, is of the file `name`.
bool is_of(std::string_view path, std::string_view name) {
  return path.ends_with(name) &&
         (path.size() == name.size() || path[path.size() - name.size() - 1] == '/');
}

/// GoogleTest's filter of the tests that the source `name` defines; empty: none.
std::string tests_of(std::string_view name) {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  std::string filter;
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const testing::TestInfo& test = *suite.GetTestInfo(j);
      if (!is_of(test.file(), name)) continue;
      filter.append(filter.empty() ? "" : ":").append(suite.name()).append(".").append(test.name());
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(kOption)) continue;
    const std::string tests = tests_of(argument.substr(kOption.size()));
    if (tests.empty()) {
      std::fprintf(stderr, "%s: no test is of this source\n", argv[i]);
      return 1;
    }
    // A filter that is given, by hand or to the child of a death test, is narrower.
    if (GTEST_FLAG_GET(filter) == "*") GTEST_FLAG_SET(filter, tests);
  }
  return RUN_ALL_TESTS();
}
