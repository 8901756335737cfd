# chimera_room([EXCLUDE files] LINKS … PRIVATE_LINKS …)
#
# Declares the room of the current folder: the library chimera_<path>, with slashes as underscores,
# made of the folder's *.cc that are no test, program or fuzz target. Its headers are included by
# their path from the root of the tree, "backbone/checkpoint/safetensors.h"; they are found through an
# include root that holds links to the headers of this one folder, so only targets that link the room
# can include them, and a wrong include does not build. LINKS are the rooms below it that its headers
# show, PRIVATE_LINKS what only its sources use. Every room may use fmt.
#
# A folder without sources is a room of headers alone (INTERFACE).
function(chimera_room)
  cmake_parse_arguments(ROOM "" "" "EXCLUDE;LINKS;PRIVATE_LINKS" ${ARGN})
  chimera_room_name(name path)
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  list(FILTER sources EXCLUDE REGEX "(_test|/test|_fuzz|/fuzz|/main)\\.cc$")
  foreach(file ${ROOM_EXCLUDE})
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  endforeach()

  chimera_include_root(root)
  if(NOT sources)
    add_library(chimera_${name} INTERFACE)
    target_include_directories(chimera_${name} INTERFACE $<BUILD_INTERFACE:${root}>)
    set_target_properties(chimera_${name} PROPERTIES CHIMERA_INCLUDED_AS ${path})
    target_link_libraries(chimera_${name} INTERFACE ${ROOM_LINKS})
    return()
  endif()
  add_library(chimera_${name} STATIC ${sources})
  target_include_directories(chimera_${name} PUBLIC $<BUILD_INTERFACE:${root}>)
  set_target_properties(chimera_${name} PROPERTIES CHIMERA_INCLUDED_AS ${path})
  target_link_libraries(chimera_${name} PUBLIC ${ROOM_LINKS} PRIVATE fmt::fmt ${ROOM_PRIVATE_LINKS})
  target_precompile_headers(chimera_${name} REUSE_FROM chimera_room_headers)
  chimera_unity(chimera_${name})
endfunction()

# chimera_include_root(VAR): a folder with links to the headers of the current one, under their path
# from the root of the tree.
function(chimera_include_root var)
  chimera_room_name(name path)
  set(root ${CMAKE_BINARY_DIR}/rooms/${name})
  file(REMOVE_RECURSE ${root})
  file(MAKE_DIRECTORY ${root}/${path})
  file(GLOB headers CONFIGURE_DEPENDS *.h)
  foreach(header ${headers})
    get_filename_component(file ${header} NAME)
    file(CREATE_LINK ${header} ${root}/${path}/${file} SYMBOLIC)
  endforeach()
  set(${var} ${root} PARENT_SCOPE)
endfunction()

# chimera_room_name(NAME PATH): of the current folder, e.g. backbone_checkpoint and
# backbone/checkpoint.
function(chimera_room_name name_var path_var)
  file(RELATIVE_PATH path ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "[/-]" "_" name ${path})
  set(${name_var} ${name} PARENT_SCOPE)
  set(${path_var} ${path} PARENT_SCOPE)
endfunction()

# chimera_test_program(NAME SOURCES … LINKS …): a GoogleTest program without an entry of CTest's.
function(chimera_test_program name)
  cmake_parse_arguments(T "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LINKS} chimera_test_main fmt::fmt GTest::gmock)
  target_compile_options(${name} PRIVATE ${CHIMERA_TEST_OPTIONS})
  target_precompile_headers(${name} REUSE_FROM chimera_test_headers)
  target_compile_definitions(${name} PRIVATE
    CHIMERA_SOURCE_DIR="${CMAKE_SOURCE_DIR}" CHIMERA_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()

# chimera_test_entry(NAME [TIMEOUT seconds] COMMAND program arguments…): a CTest entry of such a program.
function(chimera_test_entry name)
  cmake_parse_arguments(T "" "TIMEOUT" "COMMAND" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
  endif()
  math(EXPR T_TIMEOUT "${T_TIMEOUT} * ${CHIMERA_SLOW}")
  add_test(NAME ${name} COMMAND ${T_COMMAND} --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "${CHIMERA_TEST_ENVIRONMENT}")
endfunction()

# chimera_test(NAME SOURCES … LINKS … [TIMEOUT seconds]): a GoogleTest program, one CTest entry.
function(chimera_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LINKS" ${ARGN})
  chimera_test_program(${name} SOURCES ${T_SOURCES} LINKS ${T_LINKS})
  chimera_test_entry(${name} TIMEOUT "${T_TIMEOUT}" COMMAND ${name})
endfunction()

# chimera_room_tests([ALONE files] LINKS …): registers every *_test.cc of the current folder as a CTest
# entry, named after path and file (kernels_test.cc of compute/kernels is compute_kernels_test). A slow
# one raises its limit with set_tests_properties(<name> PROPERTIES TIMEOUT …) afterwards.
#
# Each is a program of its own; in a build in batches those of a folder are one, <path>_tests, as five
# of them take little longer to compile than one (what they include is read once), and an entry runs
# its source's. The names stay those of targets. ALONE are files that need a program of their own, or whose
# names clash with those of the others.
function(chimera_room_tests)
  cmake_parse_arguments(T "" "" "ALONE;LINKS" ${ARGN})
  chimera_room_name(room path)
  file(GLOB tests CONFIGURE_DEPENDS *_test.cc)
  set(together)
  foreach(test ${tests})
    get_filename_component(file ${test} NAME)
    chimera_test_name(name ${test})
    if(CHIMERA_UNITY AND NOT file IN_LIST T_ALONE)
      list(APPEND together ${test})
      add_custom_target(${name} DEPENDS ${room}_tests)
      chimera_test_entry(${name} COMMAND ${room}_tests --source=${file})
    else()
      chimera_test(${name} SOURCES ${test} LINKS chimera_${room} ${T_LINKS})
    endif()
  endforeach()
  if(together)
    chimera_test_program(${room}_tests SOURCES ${together} LINKS chimera_${room} ${T_LINKS})
    chimera_unity(${room}_tests)
  endif()
endfunction()

# chimera_test_name(VAR FILE): engine_test.cc and epochs_test.cc of daemon/engine are
# daemon_engine_test and daemon_engine_epochs_test.
function(chimera_test_name var file)
  chimera_room_name(room path)
  get_filename_component(stem ${file} NAME_WE)
  get_filename_component(folder ${path} NAME)
  string(REGEX REPLACE "^${folder}_" "" stem ${stem})
  set(${var} ${room}_${stem} PARENT_SCOPE)
endfunction()
