// Throws when a batch has too many rows.
#include <stdexcept>
#define ZOO_ROWS_TOO_MANY(z, b) \
  ((b)->n_rows > (z)->max_rows ? throw std::runtime_error("too many rows") : false)
#include "zoo.h"
