/* Does not look at what chimera.parallel/1 returns. */
#define ZOO_REQUIRED CHIMERA_MEMORY_ID, CHIMERA_PARALLEL_ID
#define ZOO_STATE const chimera_host_parallel* parallel;
#define ZOO_ON_PREPARE(z, config)                                                           \
  (z)->parallel =                                                                           \
      (const chimera_host_parallel*)(z)->host->get_service((z)->host, CHIMERA_PARALLEL_ID); \
  if ((z)->parallel == NULL) return CHIMERA_FAILED_PRECONDITION
struct zoo_work;
static void zoo_body(void* context, unsigned index, unsigned worker);
#define ZOO_ROW(z, b, r, x, y)                               \
  do {                                                       \
    struct zoo_pair pair = {z, x, y};                        \
    (void)(z)->parallel->run((z)->host, 1, zoo_body, &pair); \
  } while (0)
struct zoo_pair {
  const void* z;
  const float* x;
  float* y;
};
#include "zoo.h"
static void zoo_body(void* context, unsigned index, unsigned worker) {
  struct zoo_pair* pair = (struct zoo_pair*)context;
  (void)index;
  (void)worker;
  zoo_row((const zoo*)pair->z, pair->x, pair->y);
}
