/* Uses a field of ABI 1.1 in a batch of a host 1.0, which does not cover it. */
#include "chimera/expert.h"
static volatile uint64_t zoo_epochs;
#define ZOO_ON_FORWARD(z, b) \
  if ((b)->n_rows > 0 && (b)->row_epochs_borrowed != NULL) zoo_epochs += (b)->row_epochs_borrowed[0]
#include "zoo.h"
