/* Takes the least stride for granted. */
#define ZOO_AFTER_FORWARD(z, b)                                                                   \
  for (uint32_t r = 0; r < (b)->n_rows; ++r)                                                      \
  zoo_row(                                                                                        \
      z,                                                                                          \
      ZOO_CAST(const float*,                                                                      \
               ZOO_CAST(const void*, ZOO_CAST(const unsigned char*, (b)->x_borrowed) + r * 128)), \
      ZOO_CAST(float*,                                                                            \
               ZOO_CAST(void*, ZOO_CAST(unsigned char*, (b)->y_borrowed) + r * (b)->y_stride)))
#include "zoo.h"
