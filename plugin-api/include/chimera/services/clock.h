/* chimera.clock/1: the clock that deadlines are measured on. */
#ifndef CHIMERA_SERVICES_CLOCK_H_
#define CHIMERA_SERVICES_CLOCK_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_CLOCK_ID "chimera.clock/1"

typedef struct chimera_host_clock {
  uint32_t struct_size;
  uint32_t reserved;
  /* Nanoseconds on a clock that never goes back; about 30 ns a call, no system call. [any] */
  uint64_t (*monotonic_ns)(const chimera_host* host);
} chimera_host_clock;

CHIMERA_FROZEN_SIZE(chimera_host_clock, 16);
CHIMERA_FROZEN_OFFSET(chimera_host_clock, monotonic_ns, 8);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_CLOCK_H_ */
