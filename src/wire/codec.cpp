#include "wire/codec.h"

#include <algorithm>

namespace hearth::wire {
namespace {

constexpr int max_calls = 4096;  // of one choice; more can only come from a broken engine

std::string joined(const std::vector<Answer::Block>& blocks, Answer::Block::Kind kind) {
  std::string out;
  for (const auto& block : blocks) {
    if (block.kind == kind) out += block.text;
  }
  return out;
}

}  // namespace

std::string Answer::Choice::text() const { return joined(blocks, Block::Kind::text); }
std::string Answer::Choice::reasoning() const { return joined(blocks, Block::Kind::reasoning); }
std::vector<chat::ToolCall> Answer::Choice::calls() const {
  std::vector<chat::ToolCall> out;
  for (const auto& block : blocks) {
    if (block.kind == Block::Kind::call) out.push_back(block.call);
  }
  return out;
}

AnswerCollector::AnswerCollector(int choices) { answer_.choices.resize(static_cast<std::size_t>(std::max(choices, 1))); }

Answer::Choice* AnswerCollector::find(int index) {
  if (index < 0 || static_cast<std::size_t>(index) >= answer_.choices.size()) return nullptr;
  Answer::Choice& choice = answer_.choices[static_cast<std::size_t>(index)];
  return choice.reason ? nullptr : &choice;
}

Answer::Block& AnswerCollector::block(Answer::Choice& choice, Answer::Block::Kind kind) {
  // A signature closes its reasoning: what comes after belongs to another block.
  const bool same = !choice.blocks.empty() && choice.blocks.back().kind == kind && choice.blocks.back().signature.empty();
  return same ? choice.blocks.back() : choice.blocks.emplace_back(Answer::Block{.kind = kind});
}

// The call numbered `index`, whose place is among the choice's calls. Interleaved fragments find theirs.
Answer::Block* AnswerCollector::call(int choice_index, int index) {
  Answer::Choice* choice = find(choice_index);
  if (choice == nullptr || index < 0 || index >= max_calls) return nullptr;
  int seen = 0;
  for (auto& block : choice->blocks) {
    if (block.kind == Answer::Block::Kind::call && seen++ == index) return &block;
  }
  return nullptr;
}

void AnswerCollector::add(chat::Event event) {
  if (!answer_.first_event) answer_.first_event = std::chrono::steady_clock::now();
  using Kind = Answer::Block::Kind;
  struct Visitor {
    AnswerCollector& self;
    void operator()(chat::Started& started) {
      self.answer_.usage.prompt_tokens = started.prompt_tokens;
      self.answer_.usage.cached_tokens = started.cached_tokens;
    }
    void operator()(chat::TextDelta& delta) {
      if (auto* choice = self.find(delta.choice)) self.block(*choice, Kind::text).text += delta.text;
    }
    void operator()(chat::ReasoningDelta& delta) {
      if (auto* choice = self.find(delta.choice)) self.block(*choice, Kind::reasoning).text += delta.text;
    }
    void operator()(chat::ReasoningSignature& signature) {
      if (auto* choice = self.find(signature.choice)) self.block(*choice, Kind::reasoning).signature = std::move(signature.signature);
    }
    void operator()(chat::ToolCallBegin& begin) {
      auto* choice = self.find(begin.choice);
      if (choice == nullptr || begin.index >= max_calls) return;
      auto& block = choice->blocks.emplace_back(Answer::Block{.kind = Kind::call});
      block.call.id = std::move(begin.id);
      block.call.name = std::move(begin.name);
    }
    void operator()(chat::ToolCallDelta& delta) {
      if (auto* block = self.call(delta.choice, delta.index)) block->call.arguments += delta.arguments;
    }
    void operator()(chat::ToolCallEnd&) {}
    void operator()(chat::TokenInfo& token) {
      if (auto* choice = self.find(token.choice)) choice->tokens.push_back(std::move(token));
    }
    void operator()(chat::Finished& finished) {
      if (auto* choice = self.find(finished.choice)) {
        choice->reason = finished.reason;
        choice->stop_sequence = std::move(finished.stop_sequence);
      }
    }
    void operator()(chat::Usage& usage) { self.answer_.usage = usage; }
    void operator()(chat::Failed& failed) {
      if (self.failed_) return;
      self.failed_ = true;
      self.error_ = std::move(failed.error);
    }
  };
  std::visit(Visitor{*this}, event);
}

void AnswerCollector::end() {
  for (const auto& choice : answer_.choices) {
    if (!choice.reason) add(chat::Failed{unfinished_answer()});
  }
}

Error unfinished_answer() { return {ErrorCode::upstream_failed, "the answer broke off before it was finished; try again", {}}; }

}  // namespace hearth::wire
