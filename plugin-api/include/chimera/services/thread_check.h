/* chimera.thread-check/1: which role does this thread have right now? For assertions. */
#ifndef CHIMERA_SERVICES_THREAD_CHECK_H_
#define CHIMERA_SERVICES_THREAD_CHECK_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_THREAD_CHECK_ID "chimera.thread-check/1"

#define CHIMERA_ROLE_NONE UINT32_C(1) /* e.g. a thread the plugin created */
#define CHIMERA_ROLE_CONTROL UINT32_C(2)
#define CHIMERA_ROLE_WORKER UINT32_C(3)

typedef struct chimera_host_thread_check {
  uint32_t struct_size;
  uint32_t reserved;
  /* The role of the calling thread towards this instance. [any] */
  uint32_t (*role)(const chimera_host* host);
} chimera_host_thread_check;

CHIMERA_FROZEN_SIZE(chimera_host_thread_check, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_thread_check, role, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_THREAD_CHECK_H_ */
