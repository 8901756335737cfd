// The bytes of one generation of the state directory, apart from the files they are kept in.
//
//   chimera-state/1 <generation> <bytes of JSON> <CRC-32C of JSON, hex>\n
//   {"last_epoch": …, "history": [{"epoch": …, "time": …, "composition": {…}, "origin": …,
//    "revoked": […], "set_aside": {…}}, …]}
//
// "origin", "revoked" and "set_aside" are left out where they say nothing; a reader that does not
// know them takes the rest as it is.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "daemon/registry/state_store.h"

namespace chimera {

struct StateImage {
  uint64_t generation = 0;
  uint64_t last_epoch = 0;
  std::vector<EpochRecord> history;  // epochs strictly increase
};

std::string encode_state(const StateImage& image);
/// data_corrupt with the reason when anything but the exact bytes of a generation is found.
Result<StateImage> decode_state(std::string_view bytes);

}  // namespace chimera
