#include "base/version.h"

namespace chimera {

const char* version() { return CHIMERA_VERSION; }

}  // namespace chimera
