// Typed access to the metadata of a GGUF file that remembers the first error, so that a reader
// reads all it needs and checks once.
//
// Thread safety: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/gguf/gguf_file.h"
#include "base/status.h"

namespace chimera {

class GgufFields {
 public:
  /// Errors start with `label`. The metadata must outlive it.
  GgufFields(const GgufMetadata& metadata, std::string label)
      : metadata_(metadata), label_(std::move(label)) {}

  const Status& status() const { return status_; }
  const std::string& label() const { return label_; }
  void fail(Code code, const std::string& message, std::string hint = {});

  bool has(std::string_view key) const { return metadata_.contains(key); }
  /// Nothing when absent, or of another type, which is an error. An integer may be given per layer,
  /// as a list of equal ones.
  std::optional<int64_t> integer(std::string_view key);
  std::optional<double> number(std::string_view key);
  std::optional<bool> boolean(std::string_view key);
  const std::string* text(std::string_view key);
  const std::vector<std::string>* texts(std::string_view key);
  const std::vector<int64_t>* integers(std::string_view key);
  const std::vector<double>* numbers(std::string_view key);
  /// 0 and an error when absent.
  int64_t required(std::string_view key);

 private:
  template <class T>
  const T* get(std::string_view key, const char* expected);

  const GgufMetadata& metadata_;
  std::string label_;
  Status status_;
};

}  // namespace chimera
