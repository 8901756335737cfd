/* chimera.parallel/1: the host's compute threads.
 *
 * A plugin that creates threads of its own competes with the host for the same cores. */
#ifndef CHIMERA_SERVICES_PARALLEL_H_
#define CHIMERA_SERVICES_PARALLEL_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_PARALLEL_ID "chimera.parallel/1"

/* Must not throw. worker < batch.worker_count; two bodies with the same worker never overlap, so
 * it selects a part of the scratch memory. [worker & active] */
typedef void (*chimera_parallel_body)(void* context, uint32_t index, uint32_t worker);

typedef struct chimera_host_parallel {
  uint32_t struct_size;
  uint32_t reserved;
  /* Calls body(context, i, worker) once for every i < count, in any order, on any of the workers or
   * all on the calling thread; returns when all are done. The result must not depend on which
   * worker did what. CHIMERA_FAILED_PRECONDITION outside forward and inside a body (no nesting):
   * then nothing was called. A hand-over costs about a microsecond: give it several microseconds
   * of work. [worker & active, directly inside forward] */
  int32_t (*run)(const chimera_host* host, uint32_t count, chimera_parallel_body body,
                 void* context_borrowed);
} chimera_host_parallel;

CHIMERA_FROZEN_SIZE(chimera_host_parallel, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_parallel, run, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_PARALLEL_H_ */
