# chimera_room(NAME SOURCES … LINKS … PRIVATE_LINKS …)
#
# Declares the library `chimera_NAME` of the folder NAME. Its headers are included as
# "NAME/file.h", found through a private include root that holds a link to this one folder, so
# only targets that link the room can include it. Every room may use fmt.
function(chimera_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  set(root ${CMAKE_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${name} SYMBOLIC)
  add_library(chimera_${name} STATIC ${ROOM_SOURCES})
  target_include_directories(chimera_${name} PUBLIC ${root})
  target_link_libraries(chimera_${name} PUBLIC ${ROOM_LINKS} PRIVATE fmt::fmt ${ROOM_PRIVATE_LINKS})
  target_precompile_headers(chimera_${name} REUSE_FROM chimera_room_headers)
endfunction()

# chimera_test(NAME SOURCES … LINKS … [TIMEOUT seconds]): a GoogleTest program, one CTest entry.
function(chimera_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LINKS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  math(EXPR T_TIMEOUT "${T_TIMEOUT} * ${CHIMERA_SLOW}")
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LINKS} fmt::fmt GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${CHIMERA_TEST_OPTIONS})
  target_precompile_headers(${name} REUSE_FROM chimera_test_headers)
  target_compile_definitions(${name} PRIVATE
    CHIMERA_SOURCE_DIR="${CMAKE_SOURCE_DIR}" CHIMERA_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "${CHIMERA_TEST_ENVIRONMENT}")
endfunction()

# chimera_room_tests(LINKS …): registers every *_test.cc of the current folder as its own test
# program, named after folder and file. A slow one raises its limit with
# set_tests_properties(<name> PROPERTIES TIMEOUT …) afterwards.
function(chimera_room_tests)
  cmake_parse_arguments(T "" "" "LINKS" ${ARGN})
  get_filename_component(room ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  file(GLOB tests CONFIGURE_DEPENDS *_test.cc)
  foreach(test ${tests})
    get_filename_component(stem ${test} NAME_WE)
    chimera_test(${room}_${stem} SOURCES ${test} LINKS ${T_LINKS})
  endforeach()
endfunction()

# chimera_room_sources(VAR): every *.cc of the current folder that is no test, program or fuzz
# target.
function(chimera_room_sources var)
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  list(FILTER sources EXCLUDE REGEX "(_test|_main|_fuzz|/main)\\.cc$")
  set(${var} ${sources} PARENT_SCOPE)
endfunction()
