# chimera_fuzz(NAME SOURCE file LINKS libraries… CORPUS directory)
#
# Declares the fuzz program NAME from a file that defines LLVMFuzzerTestOneInput. With GCC it is
# linked to the stand-alone driver of tests/fuzz, with Clang to libFuzzer; both replay the corpus
# and mutate it for two seconds as a test with the label "fuzz". `cmake --preset fuzz` is the
# long-running build:
#   cmake --preset fuzz && cmake --build --preset fuzz && build-fuzz/fuzz/NAME CORPUS
option(CHIMERA_FUZZ "Instrument all code for libFuzzer (Clang only)" OFF)
if(CHIMERA_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "CHIMERA_FUZZ needs Clang, found ${CMAKE_CXX_COMPILER_ID}")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

add_custom_target(fuzzers)
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  add_library(chimera_fuzz_driver STATIC ${CMAKE_SOURCE_DIR}/tests/fuzz/driver.cc)
endif()

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
    set(arguments -max_total_time=$seconds -seed=1 ${found} ${F_CORPUS})
  else()
    target_link_libraries(${name} PRIVATE chimera_fuzz_driver)
    set(arguments --seconds $seconds --seed 1 ${F_CORPUS})
  endif()
  # `./check --fuzz SECS` says how long. Both drivers end by themselves when an input hangs.
  list(JOIN arguments " " arguments)
  add_test(NAME ${name}
    COMMAND sh -c "seconds=\${CHIMERA_FUZZ_SECONDS:-2}; exec $<TARGET_FILE:${name}> ${arguments}")
  set_tests_properties(${name} PROPERTIES
    LABELS fuzz WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()
