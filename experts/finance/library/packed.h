/* The packed form of the finance expert, written by pack_main.cc at build time and compiled into
 * the library.
 *
 * A matrix W [rows, cols] is int8 with one scale per row: W[i][j] ~ scale[i] * q[i][j],
 * scale[i] = max_j |W[i][j]| / 127, q rounded to nearest. Eight rows are a tile, and a tile lies
 * column by column: the eight bytes q[8t..8t+7][j], then those of j + 1. So one load gives one
 * weight of eight outputs, and every output is summed over j in order - in the vector kernel as in
 * the scalar one, which is why both give the same bits.
 *
 * Thread safety: constants. */
#ifndef CHIMERA_FINANCE_PACKED_H_
#define CHIMERA_FINANCE_PACKED_H_

#include <stdint.h>

enum { kFinanceTile = 8, kFinanceHidden = 256, kFinanceWidth = 512, kFinanceLayers = 6 };

/* [8 * Tiles, Cols] */
#define FINANCE_MATRIX(name, outputs, inputs)                 \
  struct name {                                               \
    float scale[outputs];                                     \
    int8_t q[(outputs) / kFinanceTile][inputs][kFinanceTile]; \
  }

FINANCE_MATRIX(FinanceUp, kFinanceWidth, kFinanceHidden);
FINANCE_MATRIX(FinanceDown, kFinanceHidden, kFinanceWidth);

struct FinanceLayer {
  struct FinanceUp gate, up; /* [512, 256] */
  struct FinanceDown down;   /* [256, 512] */
};

#endif /* CHIMERA_FINANCE_PACKED_H_ */
