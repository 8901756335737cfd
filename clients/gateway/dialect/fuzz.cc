// Fuzz target of the dialects' parsers: any text, cut in two, gives the same pieces as in one, and
// calls of JSON objects. The first byte chooses the dialect, the second where the text is cut.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/json/reader.h"
#include "clients/gateway/dialect/parser.h"

namespace {

using namespace chimera;
using namespace chimera::gateway;

std::vector<Piece> read(const Reading& reading, std::string_view first, std::string_view second) {
  static const auto tools = std::make_shared<const Json>(sample_tools());
  const auto parser = make_parser(reading, tools);
  std::vector<Piece> out;
  const auto add = [&out](const std::vector<Piece>& more) {
    for (const Piece& piece : more) {
      const bool goes_on = !out.empty() && out.back().kind == piece.kind;
      if (goes_on && piece.kind != Piece::Kind::kCall) {
        out.back().text += piece.text;
      } else {
        out.push_back(piece);
      }
    }
  };
  add(parser->push(first));
  add(parser->push(second));
  add(parser->finish());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const Reading reading{.dialect = static_cast<Dialect>(data[0] % kDialectNames.all().size()),
                        .opened = data[0] >= 128};
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t cut = text.size() * data[1] / 255;
  const auto whole = read(reading, text, "");
  const std::string_view view = text;
  if (whole != read(reading, view.substr(0, cut), view.substr(cut))) std::abort();
  for (const Piece& piece : whole) {
    if (piece.text.empty()) std::abort();
    if (piece.kind != Piece::Kind::kCall) continue;
    const auto arguments = parse_json(piece.arguments);
    if (!arguments.ok() || !arguments->is_object()) std::abort();
  }
  return 0;
}
