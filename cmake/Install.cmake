# What `cmake --install` puts where. The plugin-api's folder says its own part (component plugin-api).
#
#   bin/                           the programs
#   include/chimera/               the plugin ABI
#   include/chimera-client/        headers of the C++ client and of the rooms it stands on
#   lib/chimera/                   their archives
#   lib/cmake/Chimera{Client,Plugin}/   packages: Chimera::client, Chimera::plugin_api
#   share/chimera/                 the deployment schema, the plugin template
#   share/man/, share/bash-completion/completions/   made from --help by scripts/manual.py
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS chimerad chimera chimera-module chimera-plugin-host chimera-gateway COMPONENT programs)
install(FILES ${CMAKE_SOURCE_DIR}/configs/deployment.schema.json
              ${CMAKE_SOURCE_DIR}/configs/gateway.schema.json
        DESTINATION ${CMAKE_INSTALL_DATADIR}/chimera COMPONENT programs)
install(FILES ${CMAKE_SOURCE_DIR}/configs/server.yaml ${CMAKE_SOURCE_DIR}/configs/gateway.yaml
              ${CMAKE_SOURCE_DIR}/LICENSE
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)

# ---- manual pages and completion -------------------------------------------------------------
set(manual ${CMAKE_BINARY_DIR}/manual)
set(manual_pages ${manual}/chimera.1 ${manual}/chimera-module.1 ${manual}/chimera-plugin-check.1
    ${manual}/chimerad.8 ${manual}/chimera-plugin-host.8 ${manual}/chimera-gateway.8)
set(manual_scripts ${CMAKE_SOURCE_DIR}/scripts/manual.py ${CMAKE_SOURCE_DIR}/scripts/interface.py
    ${CMAKE_SOURCE_DIR}/scripts/completion.py)
set(manual_programs chimera chimera-module chimera-plugin-check chimerad chimera-plugin-host
    chimera-gateway)
set(manual_files)
foreach(program ${manual_programs})
  list(APPEND manual_files $<TARGET_FILE:${program}>)
endforeach()
find_program(PYTHON3 python3 PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)
add_custom_command(OUTPUT ${manual_pages}
  COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1
          ${PYTHON3} ${CMAKE_SOURCE_DIR}/scripts/manual.py ${manual} ${manual_files}
  DEPENDS ${manual_programs} ${manual_scripts} VERBATIM)
add_custom_target(manual ALL DEPENDS ${manual_pages})
foreach(page ${manual_pages})
  string(REGEX REPLACE ".*\\." "man" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/${section} COMPONENT programs)
endforeach()
install(DIRECTORY ${manual}/completion/
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT programs)

# ---- packages --------------------------------------------------------------------------------

# chimera_closure(TARGET ROOMS_VAR OTHERS_VAR): adds the rooms that TARGET stands on, itself
# included, and what else they link.
function(chimera_closure target rooms_var others_var)
  if(target IN_LIST ${rooms_var})
    return()
  endif()
  set(rooms ${${rooms_var}} ${target})
  set(others ${${others_var}})
  get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
  foreach(link ${links})
    string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" link "${link}")
    if(link STREQUAL "chimera_plugin_api")
      continue()  # a package of its own
    elseif(link MATCHES "^chimera_")
      chimera_closure(${link} rooms others)
    elseif(link)
      list(APPEND others ${link})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES others)
  set(${rooms_var} ${rooms} PARENT_SCOPE)
  set(${others_var} ${others} PARENT_SCOPE)
endfunction()

# chimera_dependency(LINK LINES_VAR): how a package finds what LINK names.
function(chimera_dependency link lines_var)
  set(modules_ZMQ libzmq)
  set(modules_PCRE2 libpcre2-8)
  set(modules_UTF8PROC libutf8proc)
  set(modules_SODIUM libsodium)
  set(modules_ZSTD libzstd)
  set(modules_SECCOMP libseccomp)
  set(lines)
  if(link MATCHES "^PkgConfig::(.*)$")
    set(name ${CMAKE_MATCH_1})
    if(NOT modules_${name})
      message(FATAL_ERROR "Install.cmake: pkg-config module of ${link} unknown; add it here")
    endif()
    set(lines "find_dependency(PkgConfig)"
        "pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${modules_${name}})")
  elseif(link MATCHES "^Boost::(.*)$")
    set(lines "find_dependency(Boost COMPONENTS ${CMAKE_MATCH_1})")
  elseif(link MATCHES "^([A-Za-z0-9_-]+)::")
    set(lines "find_dependency(${CMAKE_MATCH_1})")
  elseif(TARGET ${link})
    set(lines "find_dependency(${link})")  # yaml-cpp
  endif()
  set(${lines_var} ${${lines_var}} ${lines} PARENT_SCOPE)
endfunction()

# chimera_package(NAME COMPONENT lines…): the files by which find_package finds export set NAME.
function(chimera_package name component)
  string(REPLACE ";" "\n" CHIMERA_DEPENDENCIES "${ARGN}")
  set(folder ${CMAKE_INSTALL_LIBDIR}/cmake/${name})
  set(CHIMERA_TARGETS ${name}Targets.cmake)
  set(out ${CMAKE_BINARY_DIR}/packages)
  configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/Package.cmake.in
    ${out}/${name}Config.cmake INSTALL_DESTINATION ${folder}
    NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
  # Before 1.0 another minor version may be another interface.
  write_basic_package_version_file(${out}/${name}ConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
  install(FILES ${out}/${name}Config.cmake ${out}/${name}ConfigVersion.cmake
          DESTINATION ${folder} COMPONENT ${component})
  install(EXPORT ${name} FILE ${CHIMERA_TARGETS} NAMESPACE Chimera:: DESTINATION ${folder}
          COMPONENT ${component})
endfunction()

install(TARGETS chimera_plugin_api EXPORT ChimeraPlugin COMPONENT plugin-api)
set_target_properties(chimera_plugin_api PROPERTIES EXPORT_NAME plugin_api)
chimera_package(ChimeraPlugin plugin-api)

set(client_rooms)
set(client_others)
chimera_closure(chimera_client client_rooms client_others)
set(client_includes ${CMAKE_INSTALL_INCLUDEDIR}/chimera-client)
foreach(room ${client_rooms})
  get_target_property(folder ${room} SOURCE_DIR)
  get_target_property(included_as ${room} CHIMERA_INCLUDED_AS)
  string(REGEX REPLACE "^chimera_" "" short ${room})
  set_target_properties(${room} PROPERTIES EXPORT_NAME ${short})
  file(GLOB headers CONFIGURE_DEPENDS ${folder}/*.h)
  list(FILTER headers EXCLUDE REGEX "(/|_)testing\\.h$")
  install(FILES ${headers} DESTINATION ${client_includes}/${included_as} COMPONENT client)
endforeach()
install(TARGETS ${client_rooms} EXPORT ChimeraClient
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/chimera COMPONENT client
        INCLUDES DESTINATION ${client_includes})
set(client_lines "find_dependency(ChimeraPlugin)")
foreach(link ${client_others})
  chimera_dependency(${link} client_lines)
endforeach()
list(REMOVE_DUPLICATES client_lines)
chimera_package(ChimeraClient client ${client_lines})
