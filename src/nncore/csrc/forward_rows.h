/* (1) for a few rows, over row-major arrays, so that W need not be laid out in panels. Every sum
 * runs in the tiles' order and gives their bits. */

#pragma once

#include "activations.h"
#include "products.h"
#include "vector.h"

/* Rows and vectors of columns at a time: with 2 x 4 sums, 4 vectors of W and a broadcast they fit
 * 16 registers. */
#define ROWS_AT_ONCE 2
#define VECTORS_AT_ONCE 4

/* The vectors begin at the columns given. The last may overlap the one before; both store the same
 * sums. If a row is shorter than a vector, there is one vector, with `count` elements. */
INLINE void forward_tile(real *C, const real *A, const real *W, const real *b,
                         const ptrdiff_t *columns, ptrdiff_t count, ptrdiff_t n_prev, ptrdiff_t n,
                         const ptrdiff_t rows, const ptrdiff_t vectors, const int whole) {
    V sums[ROWS_AT_ONCE * VECTORS_AT_ONCE], w[VECTORS_AT_ONCE];
    UNROLL for (ptrdiff_t v = 0; v < vectors; v++) {
        w[v] = whole ? load(b + columns[v]) : load_part(b, count);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) sums[r * vectors + v] = w[v];
    }
    for (ptrdiff_t k = 0; k < n_prev; k++, W += n) {
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) w[v] =
            whole ? load(W + columns[v]) : load_part(W, count);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) {
            const V x = broadcast(A[r * n_prev + k]);
            UNROLL for (ptrdiff_t v = 0; v < vectors; v++) sums[r * vectors + v] =
                multiply_add(x, w[v], sums[r * vectors + v]);
        }
    }
    UNROLL for (ptrdiff_t r = 0; r < rows; r++)
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) if (whole)
            store(C + r * n + columns[v], sums[r * vectors + v]);
    else store_part(C + r * n, sums[r * vectors + v], count);
}

static void forward_rows(void *A_, const void *A_prev_, const void *W, const void *b,
                         nncore_sigma sigma, ptrdiff_t n_rows, ptrdiff_t n_prev, ptrdiff_t n) {
    real *A = A_;
    const real *A_prev = A_prev_;
    if (n == 1) { /* a panel of width 1 is row-major, too */
        forward(A, NULL, A_prev, n_prev, W, b, sigma, 0, n_rows, n_rows, n_prev, n);
        return;
    }
    for (ptrdiff_t row = 0; row < n_rows; row += ROWS_AT_ONCE)
        for (ptrdiff_t column = 0; column < n; column += VECTORS_AT_ONCE * LANES) {
            real *C = A + row * n;
            const real *a = A_prev + row * n_prev;
            const ptrdiff_t rows = n_rows - row < ROWS_AT_ONCE ? n_rows - row : ROWS_AT_ONCE;
            ptrdiff_t columns[VECTORS_AT_ONCE], vectors = 0;
            for (; vectors < VECTORS_AT_ONCE && column + vectors * LANES < n; vectors++) {
                const ptrdiff_t begin = column + vectors * LANES;
                columns[vectors] = begin + LANES <= n ? begin : n - LANES;
            }
            switch (n < LANES ? 0 : vectors) {
#define X(CASE, VECTORS, WHOLE)                                                            \
    case CASE:                                                                             \
        if (rows == 1)                                                                     \
            forward_tile(C, a, W, b, columns, n, n_prev, n, 1, VECTORS, WHOLE);            \
        else                                                                               \
            forward_tile(C, a, W, b, columns, n, n_prev, n, ROWS_AT_ONCE, VECTORS, WHOLE); \
        break;
                X(0, 1, 0) X(1, 1, 1) X(2, 2, 1) X(3, 3, 1) X(4, 4, 1)
#undef X
            }
        }
    bias_activation(A, NULL, NULL, sigma, n_rows, n);
}
