#include "safety/shell_tree.h"

#include <tree_sitter/api.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

extern "C" const TSLanguage* tree_sitter_bash(void);

namespace hearth::safety {
namespace {

// Whole seconds: libtree-sitter 0.20 adds a fraction without carrying it over, and then gives up whenever a second ends.
constexpr std::uint64_t longest_parse_us = 1'000'000;

struct ParserDeleter {
  void operator()(TSParser* parser) const { ts_parser_delete(parser); }
};
struct TreeDeleter {
  void operator()(TSTree* tree) const { ts_tree_delete(tree); }
};
using Parser = std::unique_ptr<TSParser, ParserDeleter>;
using Tree = std::unique_ptr<TSTree, TreeDeleter>;

class Cursor {
 public:
  explicit Cursor(TSNode node) : cursor_(ts_tree_cursor_new(node)) {}
  ~Cursor() { ts_tree_cursor_delete(&cursor_); }
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;
  TSNode node() const { return ts_tree_cursor_current_node(&cursor_); }
  bool down() { return ts_tree_cursor_goto_first_child(&cursor_); }
  bool right() { return ts_tree_cursor_goto_next_sibling(&cursor_); }
  bool up() { return ts_tree_cursor_goto_parent(&cursor_); }

 private:
  TSTreeCursor cursor_;
};

using Kind = TreeNode::Kind;

// The grammar's names, by its symbol numbers; looked up once.
const std::vector<std::optional<Kind>>& kinds() {
  static const std::vector<std::optional<Kind>> table = [] {
    constexpr std::array<std::pair<std::string_view, Kind>, 17> names{{
        {"program", Kind::program},
        {"list", Kind::list},
        {"pipeline", Kind::pipeline},
        {"command", Kind::command},
        {"subshell", Kind::subshell},
        {"compound_statement", Kind::group},
        {"if_statement", Kind::branch},
        {"elif_clause", Kind::elif},
        {"else_clause", Kind::otherwise},
        {"while_statement", Kind::loop},
        {"for_statement", Kind::each},
        {"do_group", Kind::body},
        {"case_statement", Kind::choice},
        {"case_item", Kind::item},
        {"function_definition", Kind::function},
        {"word", Kind::name},
        {"variable_name", Kind::name},
    }};
    const TSLanguage* language = tree_sitter_bash();
    std::vector<std::optional<Kind>> out(ts_language_symbol_count(language));
    for (std::size_t symbol = 0; symbol < out.size(); ++symbol) {
      if (ts_language_symbol_type(language, static_cast<TSSymbol>(symbol)) != TSSymbolTypeRegular) continue;
      const std::string_view name = ts_language_symbol_name(language, static_cast<TSSymbol>(symbol));
      for (const auto& [spelled, kind] : names) {
        if (name == spelled) out[symbol] = kind;
      }
    }
    return out;
  }();
  return table;
}

Error refused(std::uint32_t at, const std::string& what) {
  return Error{.code = ErrorCode::invalid_request, .message = what, .param = std::to_string(at)};
}

// Where the first ERROR or MISSING node stands.
std::uint32_t first_error(TSNode root) {
  Cursor cursor(root);
  while (true) {
    const TSNode node = cursor.node();
    if (ts_node_is_missing(node) || ts_node_symbol(node) == static_cast<TSSymbol>(-1)) return ts_node_start_byte(node);
    if (ts_node_has_error(node) && cursor.down()) continue;
    while (!cursor.right()) {
      if (!cursor.up()) return 0;
    }
  }
}

}  // namespace

Result<std::vector<TreeNode>> parse_skeleton(std::string_view skeleton) {
  thread_local const Parser parser = [] {
    Parser made(ts_parser_new());
    if (made != nullptr && !ts_parser_set_language(made.get(), tree_sitter_bash())) made.reset();
    if (made != nullptr) ts_parser_set_timeout_micros(made.get(), longest_parse_us);
    return made;
  }();
  if (parser == nullptr) return Error{.code = ErrorCode::internal, .message = "the bash grammar and libtree-sitter do not fit each other"};
  const Tree tree(ts_parser_parse_string(parser.get(), nullptr, skeleton.data(), static_cast<std::uint32_t>(skeleton.size())));
  if (tree == nullptr) {
    ts_parser_reset(parser.get());
    return refused(0, "the text is too intricate to be read in time");
  }
  const TSNode root = ts_tree_root_node(tree.get());
  if (ts_node_has_error(root)) return refused(first_error(root), "the shell would not take what stands here");

  std::vector<TreeNode> nodes;
  std::vector<std::int32_t> parents;     // open nodes
  std::vector<std::int32_t> last_child;  // of each open node
  Cursor cursor(root);
  bool descended = true;
  while (true) {
    if (descended) {
      const TSNode node = cursor.node();
      const TSSymbol symbol = ts_node_symbol(node);
      std::optional<Kind> kind;
      if (ts_node_is_named(node)) {
        if (symbol < kinds().size()) kind = kinds()[symbol];
        if (!kind && std::string_view(ts_node_type(node)) != "command_name") {
          return refused(ts_node_start_byte(node), std::string("the grammar sees a ") + ts_node_type(node) + " here");
        }
      }
      if (kind) {
        const auto index = static_cast<std::int32_t>(nodes.size());
        nodes.push_back({.kind = *kind, .begin = ts_node_start_byte(node), .end = ts_node_end_byte(node)});
        if (!parents.empty()) {
          if (last_child.back() < 0) {
            nodes[static_cast<std::size_t>(parents.back())].first_child = index;
          } else {
            nodes[static_cast<std::size_t>(last_child.back())].next = index;
          }
          last_child.back() = index;
        }
        // A command is one `x`: what it is made of is known better by whoever made the skeleton.
        if (*kind != Kind::command && *kind != Kind::name && cursor.down()) {
          parents.push_back(index);
          last_child.push_back(-1);
          continue;
        }
        if (*kind == Kind::command && ts_node_end_byte(node) != ts_node_start_byte(node) + 1) {
          return refused(ts_node_start_byte(node), "the grammar takes several commands for one here");
        }
      }
    }
    if (cursor.right()) {
      descended = true;
      continue;
    }
    if (!cursor.up() || parents.empty()) break;
    parents.pop_back();
    last_child.pop_back();
    descended = false;
  }
  return nodes;
}

}  // namespace hearth::safety
