# The compiler, its warnings, and the options every hearth target shares.

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
  message(FATAL_ERROR
    "hearth cannot be built with GCC ${CMAKE_CXX_COMPILER_VERSION}: GCC before 14 miscompiles common co_await forms (temporaries are destroyed twice).\n"
    "Install clang 19 (apt-get install clang-19 lld-19) and configure in a fresh folder with: cmake --preset dev")
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

set(HEARTH_SANITIZE "" CACHE STRING "Sanitizers for hearth's own code, e.g. address,undefined or thread")

add_library(hearth_options INTERFACE)
target_include_directories(hearth_options INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_compile_options(hearth_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(hearth_options INTERFACE -Wthread-safety -Wno-missing-field-initializers -Wno-missing-designated-field-initializers)
endif()
find_program(LLD_PROGRAM NAMES ld.lld-19 ld.lld)
if(LLD_PROGRAM)
  add_link_options(-fuse-ld=lld)
endif()
if(HEARTH_SANITIZE)
  target_compile_options(hearth_options INTERFACE -fsanitize=${HEARTH_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(hearth_options INTERFACE -fsanitize=${HEARTH_SANITIZE})
endif()
if(HEARTH_FUZZ)
  # Coverage for our code everywhere; the fuzz targets alone add libFuzzer's main.
  target_compile_options(hearth_options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(hearth_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# hearth_library(base SOURCES a.cpp ... LIBS hearth_chat ...): the library of one folder of src/.
function(hearth_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS;PRIVATE_LIBS" ${ARGN})
  add_library(hearth_${name} STATIC ${arg_SOURCES})
  target_link_libraries(hearth_${name} PUBLIC hearth_options ${arg_LIBS} PRIVATE ${arg_PRIVATE_LIBS})
endfunction()
