// open_isolated: the plugin in chimera-plugin-host.
#include "experts/library_backend.h"

namespace chimera {

Result<std::shared_ptr<LibraryBackend>> open_isolated(LibrarySource source,
                                                      std::shared_ptr<LibraryRuntime>) {
  return Status(Code::kUnimplemented,
                "module " + source.module +
                    ": found isolation process (expected in-process: this build has no "
                    "chimera-plugin-host)",
                "Write `isolation: in-process` under `library` in module.yaml if the code is "
                "trusted.");
}

}  // namespace chimera
