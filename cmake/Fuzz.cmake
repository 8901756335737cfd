# chimera_fuzz(NAME SOURCE file LINKS libraries… CORPUS directory)
#
# Declares the fuzz program NAME from a file that defines LLVMFuzzerTestOneInput. With GCC it is
# linked to the stand-alone driver of tests/fuzz, with Clang to libFuzzer; both replay the corpus
# and mutate it for five seconds as a test. `cmake --preset fuzz` is the long-running build:
#   cmake --preset fuzz && cmake --build --preset fuzz && build-fuzz/fuzz/NAME CORPUS
option(CHIMERA_FUZZ "Instrument all code for libFuzzer (Clang only)" OFF)
if(CHIMERA_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "CHIMERA_FUZZ needs Clang, found ${CMAKE_CXX_COMPILER_ID}")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

add_custom_target(fuzzers)

function(chimera_fuzz name)
  cmake_parse_arguments(F "" "SOURCE;CORPUS" "LINKS" ${ARGN})
  add_executable(${name} ${F_SOURCE})
  target_link_libraries(${name} PRIVATE ${F_LINKS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  add_dependencies(fuzzers ${name})
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    # libFuzzer adds what it finds to the first directory; the corpus in the tree stays as it is.
    set(found ${CMAKE_BINARY_DIR}/fuzz/found/${name})
    file(MAKE_DIRECTORY ${found})
    add_test(NAME ${name} COMMAND ${name} -max_total_time=5 -seed=1 ${found} ${F_CORPUS})
  else()
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/driver.cc)
    add_test(NAME ${name} COMMAND ${name} --seconds 5 --seed 1 ${F_CORPUS})
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT 60 WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()
