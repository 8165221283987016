# What `cmake --install` and `cpack -G DEB` put where. Everything is in the component "hearth": llama.cpp's own install rules (headers, tools) stay out.
include(GNUInstallDirs)
if(HEARTH_PORTABLE)
  # lib/hearth is where ggml looks for its CPU variants: GGML_BACKEND_DIR in LlamaCpp.cmake.
  get_property(backends CACHE GGML_AVAILABLE_BACKENDS PROPERTY VALUE)
  set_target_properties(llama llama-common mtmd ggml ggml-base ${backends} PROPERTIES INSTALL_RPATH "$ORIGIN" PUBLIC_HEADER "")
  install(TARGETS llama llama-common mtmd ggml ggml-base LIBRARY DESTINATION lib/hearth NAMELINK_SKIP COMPONENT hearth)
  install(TARGETS ${backends} LIBRARY DESTINATION lib/hearth COMPONENT hearth)
endif()
set_target_properties(hearth PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/hearth")
install(TARGETS hearth RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT hearth)
install(TARGETS ggml-turboquant LIBRARY DESTINATION lib/hearth COMPONENT hearth)  # for stock llama.cpp tools
install(FILES assets/hearth-nano-0-f16.gguf DESTINATION ${CMAKE_INSTALL_DATADIR}/hearth COMPONENT hearth)
install(FILES packaging/hearth.service DESTINATION lib/systemd/system COMPONENT hearth)
install(FILES packaging/hearth.toml DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/hearth COMPONENT hearth)

configure_file(packaging/hearth.1 "${CMAKE_BINARY_DIR}/packaging/hearth.1" @ONLY)
execute_process(COMMAND gzip -9nc "${CMAKE_BINARY_DIR}/packaging/hearth.1" OUTPUT_FILE "${CMAKE_BINARY_DIR}/packaging/hearth.1.gz" COMMAND_ERROR_IS_FATAL ANY)
install(FILES "${CMAKE_BINARY_DIR}/packaging/hearth.1.gz" DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT hearth)

# The licence of the libraries in the package, in the form Debian's copyright file wants: indented, a dot for an empty line.
file(READ "${hearth_llama_dir}/LICENSE" LLAMA_LICENCE)
string(STRIP "${LLAMA_LICENCE}" LLAMA_LICENCE)
string(REGEX REPLACE "\n\n" "\n.\n" LLAMA_LICENCE "${LLAMA_LICENCE}")
string(REGEX REPLACE "\n" "\n " LLAMA_LICENCE " ${LLAMA_LICENCE}")
configure_file(packaging/copyright.in "${CMAKE_BINARY_DIR}/packaging/copyright" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/packaging/copyright" README.md docs/configuration.md docs/policy.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT hearth)
install(FILES assets/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME hearth-nano-0.md COMPONENT hearth)

# The program writes its own completion scripts, so they match its flags.
foreach(entry "bash:bash-completion/completions:hearth" "zsh:zsh/vendor-completions:_hearth" "fish:fish/vendor_completions.d:hearth.fish")
  string(REPLACE ":" ";" entry "${entry}")
  list(GET entry 0 shell)
  list(GET entry 1 folder)
  list(GET entry 2 file)
  set(script "${CMAKE_BINARY_DIR}/packaging/${shell}/${file}")
  file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/packaging/${shell}")
  install(CODE "execute_process(COMMAND \"$<TARGET_FILE:hearth>\" completion ${shell} OUTPUT_FILE \"${script}\" COMMAND_ERROR_IS_FATAL ANY)" COMPONENT hearth)
  install(FILES "${script}" DESTINATION "${CMAKE_INSTALL_DATADIR}/${folder}" COMPONENT hearth)
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME hearth)
set(CPACK_PACKAGE_VENDOR "The hearth authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "private AI server: local models behind the OpenAI API")
set(CPACK_PACKAGE_DESCRIPTION "hearth serves local language models (GGUF files) to coding agents and chat clients over the OpenAI HTTP API,
with continuous batching, prefix caching and supervised engine processes. A small demonstration model is built in.")
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};hearth;hearth;/")
set(CPACK_SET_DESTDIR ON)  # /etc lies outside the prefix
set(CPACK_INSTALL_PREFIX "${CMAKE_INSTALL_PREFIX}")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The hearth authors <maintainers@hearth.invalid>")
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${CMAKE_BINARY_DIR}/bin")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  "${CMAKE_SOURCE_DIR}/packaging/conffiles;${CMAKE_SOURCE_DIR}/packaging/postinst;${CMAKE_SOURCE_DIR}/packaging/prerm;${CMAKE_SOURCE_DIR}/packaging/postrm")
include(CPack)
