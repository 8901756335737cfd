#include "clients/gateway/http/parser.h"

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace chimera::gateway {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;
using boost::system::error_code;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return out;
}

std::string text(boost::string_view view) { return std::string(view.data(), view.size()); }

}  // namespace

struct RequestParser::Impl {
  explicit Impl(const HttpLimits& with) : limits(with) { reset(); }

  void reset() {
    parser.emplace();
    parser->header_limit(static_cast<uint32_t>(limits.header_bytes));
    parser->body_limit(limits.body_bytes);
    parser->eager(false);  // stop at the end of the head
    request = {};
    state = State::kHead;
    problem.clear();
  }

  void take_head() {
    const auto& message = parser->get();
    request.method = text(message.method_string());
    const std::string target = text(message.target());
    const size_t question = target.find('?');
    request.path = target.substr(0, question);
    if (question != std::string::npos) request.query = target.substr(question + 1);
    for (const auto& field : message) {
      request.headers.emplace_back(lower(text(field.name_string())), text(field.value()));
    }
    parser->eager(true);
    state = parser->is_done() ? State::kDone : State::kBody;
  }

  void fail(const error_code& error) {
    state = State::kFailed;
    if (request.path.empty()) {  // so that the refusal has the shape of the right API
      const std::string target = text(parser->get().target());
      request.path = target.substr(0, target.find('?'));
    }
    if (error == http::error::body_limit) {
      status = 413;
      problem = "body: more than " + std::to_string(limits.body_bytes) + " bytes";
    } else if (error == http::error::header_limit) {
      status = 431;
      problem = "head: more than " + std::to_string(limits.header_bytes) + " bytes";
    } else {
      status = 400;
      problem = "not a request of HTTP/1.1";
    }
  }

  const HttpLimits& limits;
  std::optional<Parser> parser;
  Request request;
  State state = State::kHead;
  unsigned status = 400;
  std::string problem;
};

RequestParser::RequestParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
RequestParser::~RequestParser() = default;

RequestParser::State RequestParser::feed(std::string& input) {
  Impl& self = *impl_;
  while ((self.state == State::kHead || self.state == State::kBody) && !input.empty()) {
    error_code error;
    const size_t taken =
        self.parser->put(boost::asio::const_buffer(input.data(), input.size()), error);
    input.erase(0, taken);
    if (error && error != http::error::need_more) {
      self.fail(error);
      break;
    }
    if (self.state == State::kHead) {
      if (self.parser->is_header_done()) {
        self.take_head();
        return self.state;
      }
    } else if (self.parser->is_done()) {
      self.request.body = std::move(self.parser->get().body());
      self.state = State::kDone;
    }
    if (error == http::error::need_more || taken == 0) break;
  }
  return self.state;
}

RequestParser::State RequestParser::state() const { return impl_->state; }
Request& RequestParser::request() { return impl_->request; }
bool RequestParser::keep_alive() const { return impl_->parser->keep_alive(); }
bool RequestParser::chunked_answers() const { return impl_->parser->get().version() >= 11; }
bool RequestParser::expects_continue() const {
  const std::string* expect = impl_->request.header("expect");
  return expect != nullptr && lower(*expect) == "100-continue";
}
unsigned RequestParser::failed_status() const { return impl_->status; }
std::string RequestParser::problem() const { return impl_->problem; }
void RequestParser::reset() { impl_->reset(); }

}  // namespace chimera::gateway
