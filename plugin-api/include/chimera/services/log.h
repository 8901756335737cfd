/* chimera.log/1: lines in the host's log.
 *
 * Rate-limited: a flood is cut and the number of lines left out is reported. Lines longer than
 * 1 KiB are cut, control bytes are escaped. Never a token text, never a key. */
#ifndef CHIMERA_SERVICES_LOG_H_
#define CHIMERA_SERVICES_LOG_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_LOG_ID "chimera.log/1"

#define CHIMERA_LOG_DEBUG UINT32_C(1)
#define CHIMERA_LOG_INFO UINT32_C(2)
#define CHIMERA_LOG_WARNING UINT32_C(3)
#define CHIMERA_LOG_ERROR UINT32_C(4)
#define CHIMERA_LOG_HOST_MISBEHAVING UINT32_C(5)   /* the host broke the contract */
#define CHIMERA_LOG_PLUGIN_MISBEHAVING UINT32_C(6) /* e.g. a wrapper caught an exception */

#define CHIMERA_LOG_MAX_BYTES 1024

typedef struct chimera_host_log {
  uint32_t struct_size;
  uint32_t reserved;
  /* Writes one line. An unknown severity counts as ERROR. Does not block. [any] */
  void (*write)(const chimera_host* host, uint32_t severity, chimera_text line);
} chimera_host_log;

CHIMERA_FROZEN_SIZE(chimera_host_log, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_log, write, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_LOG_H_ */
