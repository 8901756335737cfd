# Precompiled headers, one set for the rooms, one for the programs and one for their tests: most of a
# compilation here goes into reading the standard library, fmt and GoogleTest. Each source still
# includes what it uses; the headers are only read from a faster form.
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

# Programs hide their symbols; the plugin checker, which exports some on purpose, says which.
add_executable(chimera_program_headers ${empty})
target_link_libraries(chimera_program_headers PRIVATE fmt::fmt)
target_precompile_headers(chimera_program_headers PRIVATE ${precompiled_room})
set_target_properties(chimera_program_headers PROPERTIES
  CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/precompiled)

# chimera_program(NAME SOURCES…): an executable of the build's bin folder.
function(chimera_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE fmt::fmt)
  target_precompile_headers(${name} REUSE_FROM chimera_program_headers)
  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  chimera_unity(${name})
endfunction()

# chimera_unity(TARGET): its sources are compiled in batches, if the build is one of those.
function(chimera_unity target)
  if(CHIMERA_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${CHIMERA_UNITY_BATCH})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # A class of a source with members of an unnamed namespace is taken for one of a header there.
      target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
    endif()
  endif()
endfunction()

# Tests are not optimised: they compile in half the time and wait for the rooms' code, which is.
set(CHIMERA_TEST_OPTIONS -O0)
add_executable(chimera_test_headers ${empty})
target_compile_options(chimera_test_headers PRIVATE ${CHIMERA_TEST_OPTIONS})
target_link_libraries(chimera_test_headers PRIVATE fmt::fmt GTest::gtest)
target_precompile_headers(chimera_test_headers PRIVATE ${precompiled_test})
set_target_properties(chimera_test_headers PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/precompiled)

# main() of the tests, compiled once.
add_library(chimera_test_main STATIC ${CMAKE_SOURCE_DIR}/tests/unit/main.cc)
target_compile_options(chimera_test_main PRIVATE ${CHIMERA_TEST_OPTIONS})
target_link_libraries(chimera_test_main PUBLIC GTest::gtest)
