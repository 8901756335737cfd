/* Refuses a batch without rows. */
#define ZOO_ROWS_TOO_MANY(z, b) ((b)->n_rows > (z)->max_rows || (b)->n_rows == 0)
#include "zoo.h"
