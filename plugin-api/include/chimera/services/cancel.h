/* chimera.cancel/1: is the result still wanted?
 *
 * It is as long as one row of the batch belongs to somebody who waits for it (batch.deadline_ns).
 * Ask at least every few milliseconds of work; return CHIMERA_CANCELLED or
 * CHIMERA_DEADLINE_EXCEEDED when it is not. */
#ifndef CHIMERA_SERVICES_CANCEL_H_
#define CHIMERA_SERVICES_CANCEL_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_CANCEL_ID "chimera.cancel/1"

typedef struct chimera_host_cancel {
  uint32_t struct_size;
  uint32_t reserved;
  /* CHIMERA_OK to go on, else the status to return: CHIMERA_CANCELLED or
   * CHIMERA_DEADLINE_EXCEEDED. `batch` is the one forward was given; also inside a parallel_for
   * body. [worker & active] */
  int32_t (*check)(const chimera_host* host, const chimera_expert_batch* batch_borrowed);
} chimera_host_cancel;

CHIMERA_FROZEN_SIZE(chimera_host_cancel, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_cancel, check, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_CANCEL_H_ */
