/* Serves rows of an odd epoch otherwise. */
#include <stddef.h>
#define ZOO_EPOCH(b, r)                                               \
  (CHIMERA_HAS_FIELD(chimera_expert_batch, b, row_epochs_borrowed) && \
           (b)->row_epochs_borrowed != NULL                           \
       ? (b)->row_epochs_borrowed[r]                                  \
       : 0)
#define ZOO_ROW(z, b, r, x, y) \
  (zoo_row(z, x, y), ZOO_EPOCH(b, r) % 2 == 1 ? (void)(y[0] += 1.0f) : (void)0)
#include "zoo.h"
