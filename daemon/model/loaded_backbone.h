// What a checkpoint is once it is in memory.
//
// Thread safety: loading blocks and belongs to the start; what it gives is immutable.
#pragma once

#include <memory>
#include <string>

#include "backbone/backbone.h"
#include "base/status.h"
#include "daemon/config/config.h"
#include "experts/kinds/module.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

/// What a model is: the checkpoint of a deployment, in memory. Handed on by value, as one object;
/// copies share everything large.
struct LoadedBackbone {
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const Tokenizer> tokenizer;         // null: the checkpoint has none
  std::shared_ptr<const ChatTemplate> chat_template;  // null: none that can be used
  Status chat_template_problem;                       // why not, when there is one
  std::shared_ptr<const Module> base;
  std::shared_ptr<const BackboneSource> source;  // of `backbone`, for bundles
  std::string fingerprint;
  std::string quantization;   // how the files hold the weights; "" when they are plain
  uint64_t stored_bytes = 0;  // of these files
};
/// `cache_dir` keeps the fingerprint between starts.
Result<LoadedBackbone> load_backbone(const DeploymentConfig& config, const std::string& cache_dir);

}  // namespace chimera
