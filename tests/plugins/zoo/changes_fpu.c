/* forward leaves flush-to-zero on. */
#include <immintrin.h>
#define ZOO_ON_FORWARD(z, b) _mm_setcsr(_mm_getcsr() | 0x8040u)
#include "zoo.h"
