#include "router/fitting/fit_module.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "router/fitting/fitted_files.h"
#include "router/fitting/gate_fit.h"
#include "router/fitting/gate_model.h"
#include "router/top_k.h"

namespace chimera {
namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstRows = Eigen::Map<const Rows>;

constexpr size_t kHeldOut = 5;  // one window of so many
constexpr size_t kLeastWindows = 10;
constexpr size_t kMostWindows = 1024;
constexpr uint64_t kSeed = 1;

/// Texts of one kind, in windows.
struct Texts {
  WindowedText fit, held;

  void add(WindowedText text) {
    for (size_t i = 0; i < text.windows.size(); ++i) {
      const size_t n = fit.windows.size() + held.windows.size();  // over all files
      WindowedText& to = n % kHeldOut == kHeldOut - 1 ? held : fit;
      to.windows.push_back(std::move(text.windows[i]));
      to.bytes.push_back(text.bytes[i]);
    }
  }
};

Result<Texts> read_texts(const GateModel& model, const std::vector<std::string>& files,
                         uint64_t limit, std::vector<std::string>& digests) {
  Texts out;
  for (const std::string& path : files) {
    Result<std::string> text = read_file(Env::system(), path, size_t{1} << 30);
    if (!text.ok()) return text.status();
    digests.push_back(sha256_of(*text));
    // Windows of all files together are what the limit allows; each has its part.
    text->resize(std::min<uint64_t>(text->size(), limit / files.size()));
    while (!text->empty() && (static_cast<unsigned char>(text->back()) & 0xc0u) == 0x80u)
      text->pop_back();
    if (!text->empty() && static_cast<unsigned char>(text->back()) >= 0xc0u) text->pop_back();
    auto windows = model.windows(*text, kMostWindows);
    if (!windows.ok()) return windows.status().with_context(path);
    out.add(std::move(*windows));
  }
  if (out.fit.windows.size() + out.held.windows.size() >= kLeastWindows) return out;
  return Status(Code::kInvalidArgument,
                fmt::format("{}: found {} windows of text (expected at least {})", files.front(),
                            out.fit.windows.size() + out.held.windows.size(), kLeastWindows),
                "Give more text; some ten kilobytes of each kind do.");
}

/// Fits the rows of one layer after the other.
class LayerFit {
 public:
  LayerFit(const GateModel& model, const FitGateOptions& options)
      : model_(model),
        options_(options),
        hidden_(model.config().hidden_size),
        top_k_(model.module().manifest.fitted_top_k().value_or(default_top_k(model.config()))) {}

  /// `wanted`, `others`: inputs of the layer.
  void fit(const std::vector<float>& wanted, const std::vector<float>& others,
           const ModuleLayer& base, ModuleLayer& layer) const {
    GateSamples samples;
    samples.x = wanted;
    samples.x.insert(samples.x.end(), others.begin(), others.end());
    const auto width = static_cast<size_t>(hidden_);
    samples.wanted.assign(wanted.size() / width, 1);
    samples.wanted.resize(samples.x.size() / width, 0);
    const Rows deviations = own_deviations(layer);
    set_offsets(base, deviations, samples);
    GateFitOptions fit;
    fit.ridge = options_.ridge;
    fit.prior = options_.prior;
    const FittedGate found = fit_gate(samples, hidden_, fit);
    const auto n = static_cast<int64_t>(layer.experts.size());
    for (int64_t e = 0; e < n; ++e) {
      for (int64_t i = 0; i < hidden_; ++i) {
        layer.gate_weight[static_cast<size_t>(e * hidden_ + i)] =
            found.weight[static_cast<size_t>(i)] + deviations(e, i);
      }
    }
    layer.gate_bias.assign(static_cast<size_t>(n), found.bias);
  }

 private:
  /// What tells the rows of a module's experts in one layer from their mean: fitted is the mean.
  Rows own_deviations(const ModuleLayer& layer) const {
    Rows rows =
        ConstRows(layer.gate_weight.data(), static_cast<int64_t>(layer.experts.size()), hidden_);
    const Eigen::RowVectorXf mean = rows.colwise().mean();
    rows.rowwise() -= mean;
    return rows;
  }

  /// o(x) of gate_fit.h.
  void set_offsets(const ModuleLayer& base, const Rows& deviations, GateSamples& samples) const {
    const auto n = static_cast<int64_t>(samples.wanted.size());
    const ConstRows x(samples.x.data(), n, hidden_);
    const auto experts = static_cast<int64_t>(base.experts.size());
    Rows logits = x * ConstRows(base.gate_weight.data(), experts, hidden_).transpose();
    if (!base.gate_bias.empty()) {
      logits.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(base.gate_bias.data(), experts);
    }
    const Rows own = x * deviations.transpose();
    // Where the weights are divided by their sum, only the chosen compete, the module among them.
    const bool chosen_only =
        model_.config().norm_topk_prob || model_.config().gate_kind == GateKind::kTopKSoftmax;
    const auto most = static_cast<size_t>(chosen_only ? std::max<int64_t>(1, top_k_ - 1) : experts);
    const auto row = [](const Rows& rows, int64_t i) {
      return std::span<const float>(rows.data() + i * rows.cols(),
                                    static_cast<size_t>(rows.cols()));
    };
    for (int64_t i = 0; i < n; ++i) {
      samples.offset.push_back(log_sum_exp(row(logits, i), most) -
                               log_sum_exp(row(own, i), static_cast<size_t>(own.cols())));
    }
  }

  const GateModel& model_;
  const FitGateOptions& options_;
  const int64_t hidden_;
  const int64_t top_k_;
};

class Fitting {
 public:
  Fitting(GateModel& model, const FitGateOptions& options) : model_(model), options_(options) {}

  Status read() {
    auto wanted = read_texts(model_, options_.text, options_.limit_bytes, digests_);
    if (!wanted.ok()) return wanted.status();
    wanted_ = std::move(*wanted);
    if (options_.against.empty()) {
      say("writing text with the backbone alone");
      auto sampled = model_.sample(std::max(kLeastWindows, wanted_.fit.windows.size()), kSeed);
      if (!sampled.ok()) return sampled.status();
      others_.add(std::move(*sampled));
      return {};
    }
    auto others = read_texts(model_, options_.against, options_.limit_bytes, digests_);
    if (!others.ok()) return others.status();
    others_ = std::move(*others);
    return {};
  }

  /// The module with fitted rows, as they are stored.
  Result<std::shared_ptr<const Module>> fit(const StoredGates& stored) {
    std::shared_ptr<const Module> fitted;
    for (int round = 0; round < options_.rounds; ++round) {
      say(fmt::format("round {} of {}", round + 1, options_.rounds));
      const auto x = model_.read(wanted_.fit, fitted, GateModel::Keep::kInputs);
      if (!x.ok()) return x.status();
      const auto y = model_.read(others_.fit, fitted, GateModel::Keep::kInputs);
      if (!y.ok()) return y.status();
      auto next = std::make_shared<Module>(model_.module());
      for (auto& [index, layer] : next->layers) {
        LayerFit(model_, options_)
            .fit(x->inputs.at(index), y->inputs.at(index), model_.base().layers.at(index), layer);
        stored.round(index, layer);
      }
      fitted = std::move(next);
    }
    return fitted;
  }

  Result<Json> report(const std::shared_ptr<const Module>& fitted) {
    Json out;
    out["windows"] = wanted_.fit.windows.size() + wanted_.held.windows.size();
    out["windows_against"] = others_.fit.windows.size() + others_.held.windows.size();
    say("scoring what was left out");
    const auto original =
        std::shared_ptr<const Module>(std::shared_ptr<const Module>(), &model_.module());
    for (const auto& [name, texts] : {std::pair{"text", &wanted_}, {"against", &others_}}) {
      if (options_.against.empty() && texts == &others_) continue;  // its own text: no measure
      const std::pair<const char*, std::shared_ptr<const Module>> ways[] = {
          {"backbone", nullptr}, {"before", original}, {"after", fitted}};
      for (const auto& [way, module] : ways) {
        const auto found = model_.read(texts->held, module, GateModel::Keep::kNothing);
        if (!found.ok()) return found.status();
        out[name][way]["bits_per_byte"] = found->bits_per_byte();
        if (module != nullptr) out[name][way]["share"] = found->share;
      }
    }
    return out;
  }

  const std::vector<std::string>& digests() const { return digests_; }

 private:
  void say(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }

  GateModel& model_;
  const FitGateOptions& options_;
  Texts wanted_, others_;
  std::vector<std::string> digests_;
};

}  // namespace

Result<Json> fit_module(const std::string& module_dir, const FitGateOptions& options) {
  auto model =
      GateModel::open(options.backbone_dir, module_dir, options.precision, options.threads);
  if (!model.ok()) return model.status();
  auto stored = StoredGates::open(module_dir, model->module().manifest);
  if (!stored.ok()) return stored.status();
  Fitting fitting(*model, options);
  CHIMERA_RETURN_IF_ERROR(fitting.read());
  const auto fitted = fitting.fit(*stored);
  if (!fitted.ok()) return fitted.status();
  Result<Json> report = fitting.report(*fitted);
  if (!report.ok()) return report;
  Json how = {{"fit_gate", model->module().manifest.digest},
              {"texts", fitting.digests()},
              {"ridge", options.ridge},
              {"prior", options.prior},
              {"rounds", options.rounds}};
  CHIMERA_RETURN_IF_ERROR(stored->write(**fitted, how, options.out_dir));
  (*report)["module"] = options.out_dir;
  return report;
}

}  // namespace chimera
