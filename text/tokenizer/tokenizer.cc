#include "text/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include "base/io/env.h"
#include "base/json/reader.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/model.h"
#include "text/tokenizer/model/vocabulary.h"
#include "text/tokenizer/stages/decoder.h"
#include "text/tokenizer/stages/normalizer.h"
#include "text/tokenizer/stages/post_processor.h"
#include "text/tokenizer/stages/pre_tokenizer.h"
#include "text/unicode.h"

namespace chimera {
namespace {

using tokenizer::kNoToken;

// The largest published tokenizers have under two million values. Of equal keys the last counts, as
// for the library that the files are made for.
constexpr JsonLimits kLimits{.max_bytes = size_t{64} << 20,
                             .max_depth = 64,
                             .max_values = 8'000'000,
                             .duplicates = DuplicateKeys::kLastCounts};
// Messages quote this many bytes of a piece.
constexpr size_t kShownPiece = 64;
// Symbol positions are 32 bit; texts of a request are far smaller.
constexpr size_t kMaxText = size_t{256} * 1024 * 1024;

Status inexpressible(std::string_view piece) {
  return Status(Code::kInvalidArgument,
                fmt::format("\"{}\" holds a character that the vocabulary lacks, and the model has "
                            "no unknown token",
                            lossy(piece.substr(0, kShownPiece))),
                "leave the character out, or add an unknown token to tokenizer.json");
}

Status check_version(const Json& document) {
  tokenizer::Fields fields(document, "");
  const std::string version = fields.string_or("version", "1.0");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (version == "1.0") return {};
  return Status(Code::kUnimplemented, fmt::format("version is \"{}\"", version),
                "supported: \"1.0\"");
}

template <class T>
Status assign(Result<T> result, T& target) {
  if (!result.ok()) return result.status();
  target = std::move(result).value();
  return {};
}

}  // namespace

struct Tokenizer::Impl {
  tokenizer::Vocabulary vocabulary;
  tokenizer::Normalizer normalizer;
  tokenizer::AddedTokens added_tokens;
  tokenizer::PreTokenizer pre_tokenizer;
  std::unique_ptr<tokenizer::TokenModel> model;
  tokenizer::PostProcessor post_processor;
  tokenizer::Decoder decoder;
  std::vector<std::string> token_bytes;  // [vocabulary.size()]
  std::vector<bool> skipped;             // [vocabulary.size()], see Vocabulary::is_skipped

  Status read(const Json& document);
  Status encode_text(std::string_view text, bool at_start, const EncodeOptions& options,
                     std::vector<int32_t>& ids) const;
  Status encode_normalized(std::string_view text, bool at_start, const EncodeOptions& options,
                           std::vector<int32_t>& ids) const;
  bool hidden(int32_t id, bool skip_special) const {
    return skip_special && skipped[static_cast<size_t>(id)];
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::string& path) {
  Result<std::string> text = read_file(Env::system(), path, kLimits.max_bytes);
  if (!text.ok()) return text.status();
  return parse(*text, path);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::parse(std::string_view json,
                                                          std::string_view label) {
  Result<Json> document = parse_json(json, kLimits);
  if (!document.ok()) return document.status().with_context(label);
  auto impl = std::make_unique<Impl>();
  if (const Status status = impl->read(*document); !status.ok()) return status.with_context(label);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

Status Tokenizer::Impl::read(const Json& document) {
  CHIMERA_RETURN_IF_ERROR(check_version(document));
  CHIMERA_RETURN_IF_ERROR(
      assign(tokenizer::Normalizer::from_json(document["normalizer"]), normalizer));
  const Json& model_json = document["model"];
  CHIMERA_RETURN_IF_ERROR(tokenizer::read_model_tokens(model_json, vocabulary));
  CHIMERA_RETURN_IF_ERROR(
      assign(tokenizer::AddedTokens::from_json(document["added_tokens"], normalizer, vocabulary),
             added_tokens));
  CHIMERA_RETURN_IF_ERROR(
      assign(tokenizer::PreTokenizer::from_json(document["pre_tokenizer"]), pre_tokenizer));
  if (!tokenizer::model_reads_bytes(model_json)) pre_tokenizer.write_byte_characters();
  const auto form = pre_tokenizer.ends_with_bytes() ? tokenizer::PieceForm::kBytes
                                                    : tokenizer::PieceForm::kCharacters;
  CHIMERA_RETURN_IF_ERROR(assign(tokenizer::make_token_model(model_json, form, vocabulary), model));
  CHIMERA_RETURN_IF_ERROR(assign(
      tokenizer::PostProcessor::from_json(document["post_processor"], vocabulary), post_processor));
  CHIMERA_RETURN_IF_ERROR(assign(tokenizer::Decoder::from_json(document["decoder"]), decoder));
  token_bytes.resize(static_cast<size_t>(vocabulary.size()));
  skipped.resize(token_bytes.size());
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.contains(id)) continue;
    token_bytes[static_cast<size_t>(id)] = decoder.bytes_of(vocabulary.decoded_form(id));
    skipped[static_cast<size_t>(id)] = vocabulary.is_skipped(id);
  }
  return {};
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  if (utf8.size() > kMaxText) {
    return Status(Code::kResourceExhausted,
                  fmt::format("text of {} bytes; the limit is {}", utf8.size(), kMaxText),
                  "send the text in smaller parts");
  }
  if (const auto bad = find_invalid_utf8(utf8)) {
    return Status(Code::kInvalidArgument, fmt::format("text is not valid UTF-8 at byte {}", *bad),
                  "send UTF-8");
  }
  std::vector<int32_t> ids;
  const auto& post = impl_->post_processor;
  if (options.add_special_tokens) ids = post.prefix();
  std::vector<tokenizer::Segment> segments;
  impl_->added_tokens.split(utf8, tokenizer::AddedTokens::Pass::kRaw, options.match_special,
                            options.plain, segments);
  for (const tokenizer::Segment& segment : segments) {
    if (segment.id != kNoToken) {
      ids.push_back(segment.id);
      continue;
    }
    // Normalizing moves the text, so the second pass treats a segment as a whole.
    EncodeOptions inner = options;
    inner.plain = {};
    const auto begin = static_cast<size_t>(segment.text.data() - utf8.data());
    if (tokenizer::touches(options.plain, begin, begin + segment.text.size())) {
      inner.match_special = false;
    }
    CHIMERA_RETURN_IF_ERROR(impl_->encode_text(segment.text, segment.at_start, inner, ids));
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), post.suffix().begin(), post.suffix().end());
  }
  return ids;
}

Status Tokenizer::Impl::encode_text(std::string_view text, bool at_start,
                                    const EncodeOptions& options, std::vector<int32_t>& ids) const {
  if (normalizer.empty()) return encode_normalized(text, at_start, options, ids);
  std::string normalized(text);
  bool keeps_start = true;
  CHIMERA_RETURN_IF_ERROR(normalizer.apply(normalized, &keeps_start));
  return encode_normalized(normalized, at_start && keeps_start, options, ids);
}

Status Tokenizer::Impl::encode_normalized(std::string_view text, bool at_start,
                                          const EncodeOptions& options,
                                          std::vector<int32_t>& ids) const {
  std::vector<tokenizer::Segment> segments;
  tokenizer::Pieces pieces;
  added_tokens.split(text, tokenizer::AddedTokens::Pass::kNormalized, options.match_special, {},
                     segments);
  for (const tokenizer::Segment& segment : segments) {
    if (segment.id != kNoToken) {
      ids.push_back(segment.id);
      continue;
    }
    CHIMERA_RETURN_IF_ERROR(
        pre_tokenizer.split(segment.text, at_start && segment.at_start, pieces));
    for (const std::string_view piece : pieces.items) {
      if (!model->encode(piece, options.match_special, ids)) return inexpressible(piece);
    }
  }
  return {};
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  const tokenizer::Vocabulary& vocabulary = impl_->vocabulary;
  tokenizer::DecodeStream stream(impl_->decoder);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t id = ids[i];
    if (id < 0) {
      return Status(Code::kInvalidArgument,
                    fmt::format("token id {} at position {} is negative", id, i),
                    "decode ids that this tokenizer or its model produced");
    }
    if (!vocabulary.contains(id) || impl_->hidden(id, skip_special)) continue;
    stream.take(vocabulary.decoded_form(id), text);
  }
  stream.finish(text);
  return text;
}

int64_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (!impl_->vocabulary.contains(id)) return {};
  return impl_->token_bytes[static_cast<size_t>(id)];
}

bool Tokenizer::is_special(int32_t id) const { return impl_->vocabulary.is_special(id); }

int32_t Tokenizer::token_id(std::string_view token) const { return impl_->vocabulary.id(token); }

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      stream_(std::make_unique<tokenizer::DecodeStream>(tokenizer_->impl_->decoder)) {}

StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  std::string text;
  const Tokenizer::Impl& impl = *tokenizer_->impl_;
  if (impl.vocabulary.contains(id) && !impl.hidden(id, skip_special_)) {
    stream_->take(impl.vocabulary.decoded_form(id), text);
  }
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  stream_->finish(text);
  *stream_ = tokenizer::DecodeStream(tokenizer_->impl_->decoder);
  return text;
}

}  // namespace chimera
