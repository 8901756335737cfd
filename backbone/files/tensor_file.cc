#include "backbone/files/tensor_file.h"

#include <algorithm>
#include <numeric>

namespace chimera {

TensorFile::TensorFile(std::string path, std::vector<TensorView> tensors, uint64_t bytes,
                       bool mapped, const FileIdentity& identity, std::shared_ptr<const void> owner)
    : path_(std::move(path)),
      tensors_(std::move(tensors)),
      by_name_(tensors_.size()),
      bytes_(bytes),
      mapped_(mapped),
      identity_(identity),
      owner_(std::move(owner)) {
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return tensors_[a].name < tensors_[b].name; });
}

const TensorView* TensorFile::find(std::string_view name) const {
  const auto at =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  if (at == by_name_.end() || tensors_[*at].name != name) return nullptr;
  return &tensors_[*at];
}

}  // namespace chimera
