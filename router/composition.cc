#include "router/composition.h"

#include <algorithm>
#include <bit>

#include "base/io/digest.h"

namespace chimera {

bool same_outputs(const CompositionModule& a, const CompositionModule& b) {
  return a.name == b.name && a.digest == b.digest && a.bias == b.bias && a.lambda == b.lambda &&
         a.precision == b.precision && a.weight == b.weight;
}

void CompositionModule::hash_options(Sha256& hash) const {
  if (!lambda.empty()) {
    hash.update_field(" lambda");  // no module has this name
    hash.update_u64(lambda.size());
    for (const auto& [parent, value] : lambda) {
      hash.update_field(parent);
      hash.update_u64(std::bit_cast<uint64_t>(value + 0.0));
    }
  }
  if (precision) {
    hash.update_field(" precision");  // nor this one
    hash.update_field(kPrecisionNames.name(*precision));
  }
  if (weight) {
    hash.update_field(" weight");  // nor this one
    hash.update_u64(std::bit_cast<uint64_t>(*weight));
  }
}

std::string Composition::digest() const {
  Sha256 hash;
  hash.update_field("chimera composition/1");
  hash.update_field(backbone_fingerprint);
  hash.update_u64(top_k ? static_cast<uint64_t>(*top_k) : 0);  // 0 is no valid top_k
  for (const CompositionModule& m : modules) {
    if (!m.enabled) continue;
    hash.update_field(m.name);
    hash.update_field(m.digest);
    hash.update_u64(std::bit_cast<uint32_t>(m.bias + 0.0f));  // -0 and +0 are the same bias
    m.hash_options(hash);
  }
  return hash.finish();
}

const CompositionModule* Composition::find(const std::string& name) const {
  const auto it = std::find_if(modules.begin(), modules.end(),
                               [&](const CompositionModule& m) { return m.name == name; });
  return it == modules.end() ? nullptr : &*it;
}

}  // namespace chimera
