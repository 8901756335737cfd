# Compiler settings shared by every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()
# -O2 rather than -O3: the hot loops are written with intrinsics, and the rest compiles faster.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

# No contraction: a*b+c becomes an FMA only where the code says so, which keeps the scalar
# reference and the vector kernels bitwise equal.
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-compare -Werror
                    -ffp-contract=off -fno-math-errno)

set(CHIMERA_SANITIZE "" CACHE STRING "Value of -fsanitize=, e.g. address,undefined or thread")
set(CHIMERA_SLOW 1)  # how many times longer tests may take
if(CHIMERA_SANITIZE)
  set(CHIMERA_SLOW 8)
  add_compile_options(-fsanitize=${CHIMERA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${CHIMERA_SANITIZE})
  # GCC 12 reports false positives of these two inside instrumented standard headers.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized -Wno-tsan)
  endif()
endif()
# Sources of a room compiled several at a time: a fresh build takes half as long, as most of a
# compilation goes into headers. Off while one works on the code: a change compiles its batch again.
# ./quickstart and ./check turn it on where they configure a new build folder.
option(CHIMERA_UNITY "Compile the sources of a room in batches" OFF)
set(CHIMERA_UNITY_BATCH 8)

# Environment of every test. Debian's libzmq is not instrumented: ThreadSanitizer cannot see how its
# queues order memory and would report each buffer that passes through one, so memory accesses that
# libzmq itself makes are left out. Those of our code are all checked; nothing is suppressed.
set(CHIMERA_TEST_ENVIRONMENT "")
if(CHIMERA_SANITIZE MATCHES "thread")
  set(CHIMERA_TEST_ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # What ccache has to overlook to work with precompiled headers.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()
