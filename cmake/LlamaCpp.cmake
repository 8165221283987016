# Brings in llama.cpp: the pinned tree (fetched and verified) or the user's own checkout. Never patched, never copied into the repository.

set(HEARTH_LLAMA_CPP_DIR "" CACHE PATH "Build against this llama.cpp checkout instead of the pinned one")
option(HEARTH_CUDA "Build ggml's CUDA back end" OFF)
option(HEARTH_PEERS "Also build llama-server of the same tree, for benchmarks and comparisons" OFF)

if(HEARTH_LLAMA_CPP_DIR)
  set(hearth_llama_dir "${HEARTH_LLAMA_CPP_DIR}")
  if(NOT EXISTS "${hearth_llama_dir}/include/llama.h")
    message(FATAL_ERROR "HEARTH_LLAMA_CPP_DIR=${hearth_llama_dir} is not a llama.cpp checkout: it has no include/llama.h")
  endif()
else()
  # Shared by every build folder of this checkout, so that all of them hit the same compiler cache entries.
  set(hearth_llama_dir "${CMAKE_SOURCE_DIR}/.cache/llama.cpp")
  execute_process(COMMAND "${CMAKE_SOURCE_DIR}/third_party/llama_cpp/fetch" "${hearth_llama_dir}" RESULT_VARIABLE rc)
  if(NOT rc EQUAL 0)
    message(FATAL_ERROR "llama.cpp could not be fetched or verified (see above). Offline? Configure with -DHEARTH_LLAMA_CPP_DIR=/path/to/llama.cpp")
  endif()
endif()

foreach(flag BUILD_IS_DEV BUILD_TESTS BUILD_EXAMPLES BUILD_APP BUILD_UI USE_PREBUILT_UI OPENSSL TESTS_INSTALL TOOLS_INSTALL)
  set(LLAMA_${flag} OFF CACHE INTERNAL "")
endforeach()
set(LLAMA_BUILD_COMMON ON CACHE INTERNAL "")
set(LLAMA_BUILD_TOOLS ${HEARTH_PEERS} CACHE INTERNAL "")
set(LLAMA_BUILD_SERVER ${HEARTH_PEERS} CACHE INTERNAL "")
set(LLAMA_BUILD_MTMD ON CACHE INTERNAL "")  # images; the library alone, where the tools are not built
set(MTMD_VIDEO OFF CACHE INTERNAL "")       # would start ffmpeg on what clients send
set(GGML_CUDA ${HEARTH_CUDA} CACHE INTERNAL "")
set(GGML_CCACHE OFF CACHE INTERNAL "")
set(GGML_OPENMP OFF CACHE INTERNAL "")
if(HEARTH_PORTABLE)
  # One package for every x86-64: ggml picks the best CPU variant at run time, from shared libraries beside each other.
  set(BUILD_SHARED_LIBS ON CACHE INTERNAL "")
  set(GGML_NATIVE OFF CACHE INTERNAL "")
  set(GGML_BACKEND_DL ON CACHE INTERNAL "")
  set(GGML_CPU_ALL_VARIANTS ON CACHE INTERNAL "")
  set(GGML_BACKEND_DIR "${CMAKE_INSTALL_PREFIX}/lib/hearth" CACHE INTERNAL "")
else()
  set(BUILD_SHARED_LIBS OFF CACHE INTERNAL "")
  set(GGML_NATIVE ON CACHE INTERNAL "")
endif()

if(HEARTH_CUDA)
  enable_language(CUDA)  # for our kernels; ggml asks for itself
  find_package(CUDAToolkit REQUIRED)
  foreach(kind STANDARD EXTENSION)  # nvcc knows it from 12.0 on, CMake 3.25 does not know that
    if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
      set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
    endif()
  endforeach()
endif()

# llama.cpp is always optimised and never instrumented: sanitizer presets check our code, and its objects come from the compiler cache.
block()
  set(CMAKE_BUILD_TYPE Release)
  set(CMAKE_CXX_FLAGS "")
  set(CMAKE_C_FLAGS "")
  add_subdirectory("${hearth_llama_dir}" "${CMAKE_BINARY_DIR}/llama.cpp" EXCLUDE_FROM_ALL SYSTEM)
endblock()
