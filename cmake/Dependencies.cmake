# Libraries from the system. scripts/deps installs them on Debian and Ubuntu.

set(HEARTH_DEPS_HINT "Run scripts/deps (Debian, Ubuntu), or install it with your package manager.")
macro(hearth_need package)
  find_package(${package} ${ARGN} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "hearth needs ${package}, which was not found. ${HEARTH_DEPS_HINT}")
  endif()
endmacro()

hearth_need(Threads)
hearth_need(Boost 1.81 COMPONENTS json)
hearth_need(OpenSSL 3)
hearth_need(spdlog)
hearth_need(CLI11)
hearth_need(tomlplusplus)
hearth_need(prometheus-cpp COMPONENTS core)
hearth_need(ZLIB)
find_path(RE2_INCLUDE_DIR re2/re2.h)
find_library(RE2_LIBRARY re2)
if(NOT RE2_INCLUDE_DIR OR NOT RE2_LIBRARY)
  message(FATAL_ERROR "hearth needs RE2, which was not found. ${HEARTH_DEPS_HINT}")
endif()

# Beast, Asio and their SSL parts cost 30-40 s a translation unit when header-only: they are compiled once, in net/asio.cpp.
add_library(hearth_asio INTERFACE)
target_compile_definitions(hearth_asio INTERFACE
  BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_BOOST_REGEX)
target_link_libraries(hearth_asio INTERFACE Boost::headers OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
