// FieldReader in the words of configuration files, with the kinds of values that recipes have.
//
// Thread safety: none; by the thread that reads a recipe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/fields/reader.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

class RecipeFields : public FieldReader {
 public:
  RecipeFields(const FieldValue& map, std::string path, Problems& problems);

  using FieldReader::word;
  /// A scalar that is not empty. Whether `out` was set, as below.
  bool word(std::string_view key, std::string_view expected, std::string& out,
            Presence presence = kOptional);
  /// "3-60", 4, "1,5-7" or a list of such.
  bool ranges(std::string_view key, std::optional<IndexRanges>& out);
  /// f32, f16, bf16 or their long names (float32 …).
  bool float_dtype(std::string_view key, std::optional<DType>& out);
  /// A list of at least one value.
  std::optional<FieldValue> items(std::string_view key, std::string_view expected,
                                  Presence presence = kOptional);
};

}  // namespace chimera
