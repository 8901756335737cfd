// The bytes of one generation of the state directory, apart from the files they are kept in.
//
//   chimera-state/2 <generation> <bytes of JSON> <CRC-32C of JSON, hex>\n
//   {"last_epoch": …, "history": [{"epoch": …, "time": …, "composition": {…}, "origin": …,
//    "revoked": […], "set_aside": {…}}, …]}
//
// "origin", "revoked" and "set_aside" are left out where they say nothing; a reader that does not
// know them takes the rest as it is. In the place of "composition", a record whose modules are
// those of the record before it has "edits": [{"at": …, "enabled": …, "bias": …, "lambda": …,
// "precision": …, "weight": …}, …], the entries with other options. So a history of changes of
// options is hardly longer than one composition, however many modules that has. chimera-state/1,
// which is read as well, has no "edits".
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "daemon/registry/state/store.h"

namespace chimera {

struct StateImage {
  uint64_t generation = 0;
  uint64_t last_epoch = 0;
  /// Epochs strictly increase. Shared, because every generation has all but one of the one before.
  std::vector<std::shared_ptr<const EpochRecord>> history;
};

/// Encodes images that follow one another. What it made of a record stays as long as the record
/// follows the same one: with many modules, comparing the records takes longer than writing them.
///
/// Thread safety: none.
class StateEncoder {
 public:
  std::string encode(const StateImage& image);

 private:
  using Record = std::shared_ptr<const EpochRecord>;
  struct Known {
    Record record, before;  // held, so that no other record comes to their addresses
    std::string text;
  };
  std::unordered_map<const EpochRecord*, Known> known_;
};

inline std::string encode_state(const StateImage& image) { return StateEncoder().encode(image); }
/// data_corrupt with the reason when anything but the exact bytes of a generation is found.
Result<StateImage> decode_state(std::string_view bytes);

}  // namespace chimera
