// Whatever frames ask for a connection (one a line; "@" is the address of this process): six frames
// of answer, and nobody let in but the front, as no key is listed.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "daemon/security/zap.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera;
  static const auto authority = Authority::start({});
  if (!authority.ok()) std::abort();
  std::vector<std::string> request(1);
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == '\n') {
      request.emplace_back();
    } else {
      request.back().push_back(static_cast<char>(data[i]));
    }
  }
  const std::string here = "localhost:0:0:" + std::to_string(getpid());
  for (std::string& frame : request) {
    if (frame == "@") frame = here;
  }
  const std::vector<std::string> answer = admit(request, **authority);
  if (answer.size() != 6 || answer[0] != "1.0") std::abort();
  if (request.size() > 1 && answer[1] != request[1]) std::abort();
  if (answer[2] != "200") return answer[4].empty() && answer[5].empty() ? 0 : (std::abort(), 0);
  const bool front = request.size() == 6 && request[2] == kFrontDomain && request[5] == "NULL" &&
                     request[3].ends_with(":" + std::to_string(getpid()));
  if (!front || answer[4] != kFrontUser) std::abort();
  return 0;
}
