/* chimera.memory/1: aligned memory, accounted to the instance and capped.
 *
 * Memory of this service shows up in the module's resident bytes; memory from malloc does not.
 * What is not released by destroy is a leak: the host frees it and says so. */
#ifndef CHIMERA_SERVICES_MEMORY_H_
#define CHIMERA_SERVICES_MEMORY_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_MEMORY_ID "chimera.memory/1"

#define CHIMERA_MEMORY_HUGE_PAGES (UINT32_C(1) << 0) /* a hint */

typedef struct chimera_host_memory {
  uint32_t struct_size;
  uint32_t reserved;
  /* `size` bytes, zeroed, at a multiple of `alignment` (a power of two up to 2 MiB; 0:
   * CHIMERA_ALIGNMENT); the caller owns them until release. Null when the cap
   * (limits.memory_bytes) or the memory is exhausted, and for size 0 or a wrong alignment. Unknown
   * flags are refused with null. [control & built, idle, active] */
  void* (*allocate)(const chimera_host* host, uint64_t size, uint64_t alignment, uint32_t flags);
  /* Takes back a block of allocate; null is legal. [control & built, idle, active] */
  void (*release)(const chimera_host* host, void* block_owned);
  /* Bytes allocated now. [any] */
  uint64_t (*used_bytes)(const chimera_host* host);
} chimera_host_memory;

CHIMERA_FROZEN_SIZE(chimera_host_memory, 32);
CHIMERA_FROZEN_OFFSET(chimera_host_memory, allocate, 8);
CHIMERA_FROZEN_OFFSET(chimera_host_memory, used_bytes, 24);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_MEMORY_H_ */
