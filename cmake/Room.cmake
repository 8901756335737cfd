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

# chimera_test(NAME SOURCES … LINKS … [TIMEOUT seconds]): a GoogleTest program, one CTest entry.
function(chimera_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LINKS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
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
# program, named after path and file (kernels_test.cc of compute/kernels is compute_kernels_test). A slow one raises its limit with
# set_tests_properties(<name> PROPERTIES TIMEOUT …) afterwards.
function(chimera_room_tests)
  cmake_parse_arguments(T "" "" "LINKS" ${ARGN})
  chimera_room_name(room path)
  file(GLOB tests CONFIGURE_DEPENDS *_test.cc)
  foreach(test ${tests})
    get_filename_component(stem ${test} NAME_WE)
    get_filename_component(folder ${path} NAME)
    string(REGEX REPLACE "^${folder}_" "" stem ${stem})
    chimera_test(${room}_${stem} SOURCES ${test} LINKS chimera_${room} ${T_LINKS})
  endforeach()
endfunction()
