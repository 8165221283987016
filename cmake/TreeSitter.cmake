# Brings in the parser of shell commands: libtree-sitter from the system, and the pinned bash grammar (fetched and verified).

find_path(TREE_SITTER_INCLUDE_DIR tree_sitter/api.h)
find_library(TREE_SITTER_LIBRARY tree-sitter)
if(NOT TREE_SITTER_INCLUDE_DIR OR NOT TREE_SITTER_LIBRARY)
  message(FATAL_ERROR "hearth needs libtree-sitter, which was not found. ${HEARTH_DEPS_HINT}")
endif()

set(hearth_bash_grammar_dir "${CMAKE_SOURCE_DIR}/.cache/tree-sitter-bash")
execute_process(COMMAND "${CMAKE_SOURCE_DIR}/third_party/tree_sitter_bash/fetch" "${hearth_bash_grammar_dir}" RESULT_VARIABLE rc)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "The bash grammar could not be fetched or verified (see above).")
endif()

# Always optimised. Its scanner reads what attackers write, so sanitizer presets watch it too.
add_library(hearth_bash_grammar STATIC "${hearth_bash_grammar_dir}/parser.c" "${hearth_bash_grammar_dir}/scanner.c")
target_include_directories(hearth_bash_grammar PRIVATE "${hearth_bash_grammar_dir}")
target_compile_options(hearth_bash_grammar PRIVATE -O2 -w)
if(HEARTH_SANITIZE)
  target_compile_options(hearth_bash_grammar PRIVATE -fsanitize=${HEARTH_SANITIZE} -fno-omit-frame-pointer)
endif()

add_library(hearth_tree_sitter INTERFACE)
target_include_directories(hearth_tree_sitter SYSTEM INTERFACE "${TREE_SITTER_INCLUDE_DIR}")
target_link_libraries(hearth_tree_sitter INTERFACE hearth_bash_grammar "${TREE_SITTER_LIBRARY}")
