# chimera_plugin(NAME SOURCES … [DEFINITIONS …]): an expert plugin, built as
# plugin-api/template/CMakeLists.txt builds one (that file stands alone, so the settings are there
# a second time).
function(chimera_plugin name)
  cmake_parse_arguments(P "" "" "SOURCES;DEFINITIONS" ${ARGN})
  add_library(${name} MODULE ${P_SOURCES})
  target_link_libraries(${name} PRIVATE chimera_plugin_api)
  target_compile_definitions(${name} PRIVATE ${P_DEFINITIONS})
  set(exports ${CMAKE_SOURCE_DIR}/plugin-api/template/exports.map)
  set_target_properties(${name} PROPERTIES
    PREFIX "" C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins LINK_DEPENDS ${exports})
  # Unique symbols make a library impossible to unload. Clang never emits them.
  target_compile_options(${name} PRIVATE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>)
  target_link_options(${name} PRIVATE
    -Wl,--version-script=${exports} -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack)
  # The sanitizers' symbols come from the program.
  if(NOT CHIMERA_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,-z,defs)
  endif()
endfunction()
