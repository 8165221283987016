#include "fleet/dialect_stream.h"

#include <map>
#include <utility>

namespace hearth::fleet {
namespace {

class DialectStream final : public wire::EventStream {
 public:
  DialectStream(std::unique_ptr<wire::EventStream> inner, wire::Dialect dialect, std::vector<chat::ToolSpec> tools)
      : inner_(std::move(inner)), dialect_(dialect), tools_(std::move(tools)), explanation_(inner_->explanation()) {}

  net::Task<chat::Events> next() override {
    chat::Events out;
    while (out.empty()) {
      auto events = co_await inner_->next();
      if (events.empty()) break;
      for (auto& event : events) take(std::move(event), out);
    }
    co_return out;
  }
  void cancel() override { inner_->cancel(); }
  const chat::Explanation& explanation() const override { return explanation_; }

 private:
  void take(chat::Event event, chat::Events& out) {
    if (const auto* text = std::get_if<chat::TextDelta>(&event)) {
      parser(text->choice).feed(text->text, out);
    } else if (auto* finished = std::get_if<chat::Finished>(&event)) {
      auto& parsed = parser(finished->choice);
      parsed.finish(finished->reason, out);
      auto* end = out.empty() ? nullptr : std::get_if<chat::Finished>(&out.back());
      if (end && end->reason == finished->reason) end->stop_sequence = std::move(finished->stop_sequence);
      if (!parsed.note().empty()) explanation_.add("dialect", parsed.note());
    } else {
      out.push_back(std::move(event));
    }
  }
  wire::DialectParser& parser(int choice) { return parsers_.try_emplace(choice, dialect_, tools_, choice).first->second; }

  std::unique_ptr<wire::EventStream> inner_;
  const wire::Dialect dialect_;
  const std::vector<chat::ToolSpec> tools_;
  std::map<int, wire::DialectParser> parsers_;
  chat::Explanation explanation_;
};

}  // namespace

std::unique_ptr<wire::EventStream> read_dialect(std::unique_ptr<wire::EventStream> inner, wire::Dialect dialect,
                                                std::vector<chat::ToolSpec> tools) {
  return std::make_unique<DialectStream>(std::move(inner), dialect, std::move(tools));
}

}  // namespace hearth::fleet
