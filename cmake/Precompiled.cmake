# Precompiled headers, one set for the rooms and one for their tests: most of a compilation here goes
# into reading the standard library, fmt and GoogleTest. Each source still includes what it uses; the
# headers are only read from a faster form.
set(precompiled_room
  <algorithm> <array> <atomic> <chrono> <cmath> <condition_variable> <cstdint> <cstring> <deque>
  <filesystem> <fstream> <functional> <limits> <map> <memory> <mutex> <optional> <set> <span> <string>
  <string_view> <thread> <utility> <variant> <vector> <fmt/format.h>)
set(precompiled_test ${precompiled_room} <random> <gtest/gtest.h>)

# The compiler takes the headers only for the options they were made with, so each set belongs to a
# target of the kind that uses it (library: -fPIC, program: -fPIE).
set(empty ${CMAKE_BINARY_DIR}/precompiled/empty.cc)
file(CONFIGURE OUTPUT ${empty} CONTENT "int main() { return 0; }\n" @ONLY)

add_library(chimera_room_headers STATIC ${empty})
target_link_libraries(chimera_room_headers PRIVATE fmt::fmt)
target_precompile_headers(chimera_room_headers PRIVATE ${precompiled_room})

# Tests are not optimised: they compile in half the time and wait for the rooms' code, which is.
set(CHIMERA_TEST_OPTIONS -O0)
add_executable(chimera_test_headers ${empty})
target_compile_options(chimera_test_headers PRIVATE ${CHIMERA_TEST_OPTIONS})
target_link_libraries(chimera_test_headers PRIVATE fmt::fmt GTest::gtest)
target_precompile_headers(chimera_test_headers PRIVATE ${precompiled_test})
set_target_properties(chimera_test_headers PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/precompiled)
