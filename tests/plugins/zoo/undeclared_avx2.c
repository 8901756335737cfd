/* Uses AVX2 without declaring it and without asking the CPU. (Compiled with -mavx2 -O2.) */
#include <immintrin.h>
#define ZOO_ROW(z, b, r, x, y) \
  zoo_row(z, x, y);            \
  _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), _mm256_setzero_ps()))
#include "zoo.h"
