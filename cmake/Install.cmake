# What `cmake --install` puts where. The plugin-api's folder says its own part (component plugin-api).
#
#   bin/                           the programs
#   include/chimera/               the plugin ABI
#   include/chimera-client/        headers of the C++ client and of the rooms it stands on
#   lib/chimera/                   their archives
#   lib/cmake/Chimera{Client,Plugin}/   packages: Chimera::client, Chimera::plugin_api
#   {lib,share}/pkgconfig/         the same for others: chimera-client, chimera-plugin
#   share/chimera/                 the schemas of configuration files, the plugin template
#   share/man/, share/{bash-completion,zsh,fish}/   made from --help by scripts/manual.py
#
# packaging/ makes Debian packages of these components, and adds what only a system has.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS chimerad chimera chimera-module chimera-plugin-host chimera-gateway COMPONENT programs)
install(FILES ${CMAKE_SOURCE_DIR}/configs/deployment.schema.json
              ${CMAKE_SOURCE_DIR}/configs/gateway.schema.json
        DESTINATION ${CMAKE_INSTALL_DATADIR}/chimera COMPONENT programs)
install(FILES ${CMAKE_SOURCE_DIR}/configs/server.yaml ${CMAKE_SOURCE_DIR}/configs/gateway.yaml
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)
# Debian has the licence in a place of its own.
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT licence)

# ---- manual pages and completion -------------------------------------------------------------
set(manual ${CMAKE_BINARY_DIR}/manual)
set(manual_pages ${manual}/chimera.1 ${manual}/chimera-module.1 ${manual}/chimera-plugin-check.1
    ${manual}/chimerad.8 ${manual}/chimera-plugin-host.8 ${manual}/chimera-gateway.8)
set(manual_scripts)
foreach(script manual interface completion completion_fish completion_zsh)
  list(APPEND manual_scripts ${CMAKE_SOURCE_DIR}/scripts/${script}.py)
endforeach()
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
install(DIRECTORY ${manual}/fish/
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT programs)
# Where zsh looks below /usr/local. Debian's packages have another place.
install(DIRECTORY ${manual}/zsh/
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT zsh)

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

# chimera_link_order(TARGET VAR): the archives of TARGET for a linker that looks at each once: whoever
# uses another comes before it.
function(chimera_link_order target var)
  chimera_visit(${target} order)
  list(REVERSE order)
  set(${var} ${order} PARENT_SCOPE)
endfunction()
function(chimera_visit target order_var)
  set(order ${${order_var}})
  get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
  foreach(link ${links})
    string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" link "${link}")
    if(link MATCHES "^chimera_" AND NOT link IN_LIST order)
      chimera_visit(${link} order)
    endif()
  endforeach()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    list(APPEND order ${target})
  endif()
  set(${order_var} ${order} PARENT_SCOPE)
endfunction()

# chimera_dependency(LINK LINES_VAR MODULES_VAR DEBIAN_VAR): how a package finds what LINK names, its
# pkg-config module, and the Debian package that has it.
function(chimera_dependency link lines_var modules_var debian_var)
  set(known
      "ZMQ libzmq libzmq3-dev" "PCRE2 libpcre2-8 libpcre2-dev" "UTF8PROC libutf8proc libutf8proc-dev"
      "SODIUM libsodium libsodium-dev" "ZSTD libzstd libzstd-dev" "SECCOMP libseccomp libseccomp-dev"
      "fmt fmt libfmt-dev" "OpenSSL libcrypto libssl-dev" "spdlog spdlog libspdlog-dev"
      "nlohmann_json nlohmann_json nlohmann-json3-dev" "yaml-cpp yaml-cpp libyaml-cpp-dev")
  if(link MATCHES "^(Threads::|dl$)")
    set(${lines_var} ${${lines_var}} "find_dependency(Threads)" PARENT_SCOPE)
    return()  # of the C library
  endif()
  string(REGEX REPLACE "^PkgConfig::|::.*$" "" name ${link})
  set(found ${known})
  list(FILTER found INCLUDE REGEX "^${name} ")
  if(NOT found)
    message(FATAL_ERROR "Install.cmake: packages of ${link} unknown; add them here")
  endif()
  separate_arguments(found)
  list(GET found 1 module)
  list(GET found 2 debian)
  set(lines "find_dependency(${name})")
  if(link MATCHES "^PkgConfig::")
    set(lines "find_dependency(PkgConfig)"
        "pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})")
  endif()
  set(${lines_var} ${${lines_var}} ${lines} PARENT_SCOPE)
  set(${modules_var} ${${modules_var}} ${module} PARENT_SCOPE)
  set(${debian_var} ${${debian_var}} ${debian} PARENT_SCOPE)
endfunction()

# chimera_pkg_config(NAME COMPONENT FOLDER DESCRIPTION INCLUDES LIBS REQUIRES): FOLDER/pkgconfig/NAME.pc,
# relative to itself so that a prefix can be moved.
function(chimera_pkg_config name component folder description includes libs requires)
  set(PC_NAME ${name})
  set(PC_DESCRIPTION ${description})
  set(PC_INCLUDES ${includes})
  set(PC_LIBRARIES ${CMAKE_INSTALL_LIBDIR}/chimera)
  set(PC_LIBS ${libs})
  list(JOIN requires " " PC_REQUIRES)
  file(RELATIVE_PATH PC_PREFIX /${folder}/pkgconfig /)
  string(REGEX REPLACE "/$" "" PC_PREFIX ${PC_PREFIX})
  configure_file(${CMAKE_SOURCE_DIR}/cmake/package.pc.in ${CMAKE_BINARY_DIR}/packages/${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/packages/${name}.pc
          DESTINATION ${folder}/pkgconfig COMPONENT ${component})
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
chimera_pkg_config(chimera-plugin plugin-api ${CMAKE_INSTALL_DATADIR}
  "Plugin interface of the Chimera daemon" ${CMAKE_INSTALL_INCLUDEDIR} "" "")

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
set(client_modules chimera-plugin)
set(client_debian)  # for packaging/
foreach(link ${client_others})
  chimera_dependency(${link} client_lines client_modules client_debian)
endforeach()
foreach(list client_lines client_modules client_debian)
  list(REMOVE_DUPLICATES ${list})
endforeach()
chimera_package(ChimeraClient client ${client_lines})
chimera_link_order(chimera_client client_archives)
list(TRANSFORM client_archives PREPEND "-l")
list(JOIN client_archives " " client_archives)
chimera_pkg_config(chimera-client client ${CMAKE_INSTALL_LIBDIR}
  "C++ client of the Chimera daemon" ${client_includes}
  "-L\${libdir} ${client_archives} -pthread" "${client_modules}")
