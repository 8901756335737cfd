/* A constructor turns on flush-to-zero, as -ffast-math does. */
#include <immintrin.h>
#include "zoo.h"
__attribute__((constructor)) static void start(void) { _mm_setcsr(_mm_getcsr() | 0x8040u); }
