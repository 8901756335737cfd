#include "clients/gateway/openai/answer.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera::gateway::openai {
namespace {

Json bytes_of(const std::string& text) {
  Json out = Json::array();
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

/// In UTF-8, every byte but those that continue a character.
size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

/// As the API of /v1/completions writes them: parallel arrays; offsets count characters.
Json parallel(const Json& tokens, size_t offset) {
  Json texts = Json::array(), values = Json::array(), offsets = Json::array();
  for (const Json& token : tokens) {
    texts.push_back(token["token"]);
    values.push_back(token["logprob"]);
    offsets.push_back(offset);
    offset += characters(*token["token"].string());
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", nullptr},
          {"text_offset", std::move(offsets)}};
}

}  // namespace

Answer::Answer(const Completion& asked, std::string id, int64_t created)
    : api_(asked.api),
      model_(asked.model),
      id_(std::move(id)),
      created_(created),
      logprobs_(asked.logprobs),
      per_prompt_(asked.per_prompt),
      choices_(asked.calls.size()) {}

std::vector<Json> Answer::on_token(size_t choice, const Json& event) {
  Choice& state = choices_[choice];
  const std::string text = event.value("text", "");
  epoch_ = event.value("epoch", epoch_);
  Json of_token = Json::array();
  if (logprobs_) {
    of_token.push_back({{"token", text},
                        {"logprob", event["logprob"]},
                        {"bytes", bytes_of(text)},
                        {"top_logprobs", Json::array()}});
    state.logprobs.push_back(of_token[0]);
  }
  std::vector<Json> chunks;
  if (!text.empty() || logprobs_ || !state.begun) {
    chunks.push_back(chunk(choice, text, std::move(of_token), nullptr));
  }
  state.text += text;
  return chunks;
}

std::vector<Json> Answer::on_done(size_t choice, const Json& done) {
  Choice& state = choices_[choice];
  ++done_;
  if (const std::string* text = done["text"].string()) state.text = *text;
  state.finish_reason = done.value("finish_reason", "");
  const Json& usage = done["usage"];
  completion_tokens_ += usage.value("completion_tokens", int64_t{0});
  if (choice % per_prompt_ == 0) {  // a prompt counts once, however many answers it has
    prompt_tokens_ += usage.value("prompt_tokens", int64_t{0});
    cached_tokens_ += usage.value("cached_tokens", int64_t{0});
  }
  const Json& from = done["provenance"];
  epoch_ = from.value("epoch", epoch_);
  composition_ = from.value("composition", "");
  backbone_share_ += from["backbone"].value("share", 0.0);
  for (const auto& [name, module] : from["modules"].items()) {
    const auto same = [&, &key = name](const auto& entry) { return entry.first == key; };
    auto found = std::find_if(shares_.begin(), shares_.end(), same);
    if (found == shares_.end()) found = shares_.insert(shares_.end(), {name, 0.0});
    found->second += module.value("share", 0.0);
  }
  Json last = chunk(choice, "", Json::array(), state.finish_reason);
  last["chimera"] = provenance();
  return {std::move(last)};
}

Json Answer::envelope(bool is_chunk) const {
  const char* object = api_ == Api::kText ? "text_completion"
                       : is_chunk         ? "chat.completion.chunk"
                                          : "chat.completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

Json Answer::chunk(size_t choice, const std::string& text, Json logprobs, Json finish_reason) {
  Choice& state = choices_[choice];
  Json entry = {{"index", choice}};
  if (api_ == Api::kChat) {
    Json delta = Json::object();
    if (!state.begun) delta["role"] = "assistant";
    if (!text.empty() || !state.begun) delta["content"] = text;
    entry["delta"] = std::move(delta);
  } else {
    entry["text"] = text;
  }
  if (logprobs.empty()) {
    entry["logprobs"] = nullptr;
  } else if (api_ == Api::kChat) {
    entry["logprobs"] = {{"content", std::move(logprobs)}, {"refusal", nullptr}};
  } else {
    entry["logprobs"] = parallel(logprobs, characters(state.text));
  }
  entry["finish_reason"] = std::move(finish_reason);
  state.begun = true;
  Json out = envelope(/*is_chunk=*/true);
  out["choices"] = Json::array({std::move(entry)});
  if (epoch_ != 0) out["chimera"] = {{"epoch", epoch_}};
  return out;
}

Json Answer::logprobs_of(const Choice& choice) const {
  if (!logprobs_) return nullptr;
  if (api_ == Api::kText) return parallel(choice.logprobs, 0);
  return {{"content", choice.logprobs}, {"refusal", nullptr}};
}

Json Answer::whole() const {
  Json out = envelope(/*is_chunk=*/false);
  Json list = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    Json entry = {{"index", i}};
    if (api_ == Api::kChat) {
      entry["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    } else {
      entry["text"] = choice.text;
    }
    entry["logprobs"] = logprobs_of(choice);
    entry["finish_reason"] = choice.finish_reason;
    list.push_back(std::move(entry));
  }
  out["choices"] = std::move(list);
  out["usage"] = usage();
  out["chimera"] = provenance();
  return out;
}

Json Answer::usage_chunk() const {
  Json out = envelope(/*is_chunk=*/true);
  out["choices"] = Json::array();
  out["usage"] = usage();
  out["chimera"] = provenance();
  return out;
}

Json Answer::usage() const {
  return {{"prompt_tokens", prompt_tokens_},
          {"completion_tokens", completion_tokens_},
          {"total_tokens", prompt_tokens_ + completion_tokens_},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens_}}}};
}

Json Answer::provenance() const {
  const double count = static_cast<double>(done_ == 0 ? 1 : done_);
  Json modules = Json::object();
  for (const auto& [name, sum] : shares_) modules[name] = sum / count;
  return {{"epoch", epoch_},
          {"composition", composition_},
          {"modules", std::move(modules)},
          {"backbone", backbone_share_ / count}};
}

std::string Answer::shares() const {
  std::string out;
  const double count = static_cast<double>(done_ == 0 ? 1 : done_);
  for (const auto& [name, sum] : shares_) {
    fmt::format_to(std::back_inserter(out), "{}{}={:.4f}", out.empty() ? "" : ",", name,
                   sum / count);
  }
  return out;
}

}  // namespace chimera::gateway::openai
