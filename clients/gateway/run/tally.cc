#include "clients/gateway/run/tally.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera::gateway {

void Tally::token(const Json& event) { epoch_ = event.value("epoch", epoch_); }

void Tally::done(size_t choice, const Json& done) {
  ++done_;
  const Json& usage = done["usage"];
  completion_tokens += usage.value("completion_tokens", int64_t{0});
  if (choice % per_prompt_ == 0) {
    prompt_tokens += usage.value("prompt_tokens", int64_t{0});
    cached_tokens += usage.value("cached_tokens", int64_t{0});
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
}

std::vector<std::pair<std::string, double>> Tally::shares() const {
  auto out = shares_;
  for (auto& [name, share] : out) share /= static_cast<double>(done_ == 0 ? 1 : done_);
  return out;
}

Json Tally::provenance() const {
  Json modules = Json::object();
  for (const auto& [name, share] : shares()) modules[name] = share;
  return {{"epoch", epoch_},
          {"composition", composition_},
          {"modules", std::move(modules)},
          {"backbone", backbone_share_ / static_cast<double>(done_ == 0 ? 1 : done_)}};
}

std::string Tally::shares_text() const {
  std::string out;
  for (const auto& [name, share] : shares()) {
    fmt::format_to(std::back_inserter(out), "{}{}={:.4f}", out.empty() ? "" : ",", name, share);
  }
  return out;
}

}  // namespace chimera::gateway
