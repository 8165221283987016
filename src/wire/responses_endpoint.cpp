#include "wire/responses_endpoint.h"

#include <ctime>
#include <optional>

#include "base/id.h"
#include "wire/answer.h"
#include "wire/openai.h"
#include "wire/responses.h"

namespace hearth::wire::responses {
namespace {

using net::Task;

class Codec final : public AnswerCodec {
 public:
  Codec(AnswerHead head, chat::Explanation explanation) : head_(std::move(head)), explanation_(std::move(explanation)) {}
  void served_by(const std::string& model) override {
    head_.model = model;
    encoder_.emplace(head_);
  }
  void encode(const chat::Event& event, std::string& out) override { encoder_->encode(event, out); }
  void end(std::string& out) override { encoder_->end(out); }
  void keep_alive(std::string& out) override { encoder_->keep_alive(out); }
  std::string whole(const Answer& answer) override { return encode_answer(head_, answer); }
  chat::Explanation explanation() const override { return explanation_; }

 private:
  AnswerHead head_;
  chat::Explanation explanation_;
  std::optional<StreamEncoder> encoder_;
};

}  // namespace

Task<bool> serve(net::Exchange& exchange, Provider& provider, Caller caller, EndpointOptions options) {
  const net::HttpRequest& request = exchange.request();
  if (request.path() != "/v1/responses") co_return false;
  if (!co_await accepts(exchange, caller, "POST", openai::encode_error)) co_return true;
  auto decoded = decode_create(request.body);
  if (!decoded) {
    co_await respond_error(exchange, decoded.error(), caller, openai::encode_error);
    co_return true;
  }
  AnswerHead head;
  head.id = random_id("resp_");
  head.created = std::time(nullptr);
  head.echo = std::move(decoded->echo);
  head.summary = decoded->summary;
  Codec codec(std::move(head), std::move(decoded->explanation));
  co_await answer(exchange, provider, std::move(caller), options, std::move(decoded->request), codec, openai::encode_error);
  co_return true;
}

}  // namespace hearth::wire::responses
