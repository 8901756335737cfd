#include "clients/gateway/run/one_answer.h"

#include <utility>

namespace chimera::gateway {

OneAnswer::OneAnswer(bool stream, CallRules rules)
    : stream_(stream),
      rules_(std::move(rules)),
      parser_(make_parser({}, rules_.tools)),
      tally_(/*choices=*/1) {}

void OneAnswer::reads(const Reading& reading) {
  dialect_ = reading.dialect;
  parser_ = make_parser(reading, rules_.tools);
}

std::string OneAnswer::on_token(size_t, const Json& event) {
  tally_.token(event);
  if (!stream_) return {};
  std::string bytes = begin_once();
  bytes += take(parser_->push(event.value("text", "")));
  return bytes;
}

std::string OneAnswer::on_done(size_t, const Json& done) {
  tally_.done(0, done);
  std::string bytes = begin_once();
  if (!stream_) take(parser_->push(done.value("text", "")));
  bytes += take(parser_->finish());
  cut_ = done.value("finish_reason", "") == "length";
  bytes += finish();
  return bytes;
}

std::string OneAnswer::begin_once() {
  return std::exchange(begun_, true) ? std::string() : begin();
}

std::string OneAnswer::take(const std::vector<Piece>& pieces) {
  std::string bytes;
  for (const Piece& piece : pieces) {
    if (piece.kind != Piece::Kind::kCall) {
      bytes += grow(piece.kind, piece.text);
    } else if (rules_.parallel || calls_ == 0) {
      ++calls_;
      bytes += call(piece);
    }
  }
  return bytes;
}

}  // namespace chimera::gateway
