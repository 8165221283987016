// The grammar's view of a skeleton (shell_scan.h): which commands stand in which branch, pipe and group.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hearth::safety {

struct TreeNode {
  enum class Kind : std::uint8_t {
    program,
    list,      // a && b, a || b
    pipeline,  //
    command,   // one `x`
    subshell,
    group,   // { … }
    branch,  // if
    elif,
    otherwise,  // else
    loop,       // while, until
    each,       // for, select
    body,       // do … done
    choice,     // case
    item,       // of a case
    function,
    name,  // of a function, or a word that is no command: skipped
  };
  Kind kind = Kind::program;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  std::int32_t first_child = -1;
  std::int32_t next = -1;
};

// nodes[0] is the program. invalid_request when the grammar does not take the skeleton; `param` holds the place as a number. Linear, bounded in time.
Result<std::vector<TreeNode>> parse_skeleton(std::string_view skeleton);

}  // namespace hearth::safety
