/* chimera.error/1: a text for the status that a function is about to return.
 *
 * Good texts name the thing, what was found and what was expected. */
#ifndef CHIMERA_SERVICES_ERROR_H_
#define CHIMERA_SERVICES_ERROR_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_ERROR_ID "chimera.error/1"

#define CHIMERA_ERROR_MAX_BYTES 1024

typedef struct chimera_host_error {
  uint32_t struct_size;
  uint32_t reserved;
  /* Keeps a copy (cut at 1 KiB) and uses it when the call on this thread that is inside the plugin
   * returns a status other than ok; the last text wins. Without effect outside such a call, and
   * inside a parallel_for body. [control, worker; same call only] */
  void (*set)(const chimera_host* host, chimera_text text);
} chimera_host_error;

CHIMERA_FROZEN_SIZE(chimera_host_error, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_error, set, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_ERROR_H_ */
