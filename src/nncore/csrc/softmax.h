/* Softmax: each row of Z becomes e^z over its sum; subtracting the row's largest z first keeps exp
 * from overflowing. */

#pragma once

#include "elementary.h"
#include "panels.h"
#include "vector.h"

/* A row of few columns takes one lane, since reducing it across the lanes costs more than the
 * exponentials: 16 instead of 65 ns for a row of ten. The bound keeps the transposed copy, of at
 * most 4 KB, in L1. */
#define LANE_COLUMNS (4 * LANES)

/* Up to LANES rows of up to LANE_COLUMNS, one per lane. */
INLINE void softmax_lanes(real *A, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    V columns[LANE_COLUMNS], largest = broadcast(-INFINITY), total = {0};
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        for (ptrdiff_t r = 0; r < LANES; r++)
            columns[j + r] = r < n_rows ? LOAD(A + r * stride + j, n - j) : (V){0};
        transpose_square(columns + j);
    }
    for (ptrdiff_t j = 0; j < n; j++)
        largest = SELECT(largest > columns[j], largest, columns[j]);
    for (ptrdiff_t j = 0; j < n; j++)
        total += columns[j] = vector_exp(columns[j] - largest);
    for (ptrdiff_t j = 0; j < n; j++)
        columns[j] /= total;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        transpose_square(columns + j);
        for (ptrdiff_t r = 0; r < LANES && r < n_rows; r++)
            STORE(A + r * stride + j, columns[j + r], stride - j);
    }
}

/* A row of many columns, across the lanes. */
static void softmax_row(real *A, ptrdiff_t n) {
    V largest = broadcast(-INFINITY);
    FOR_EACH_VECTOR (j, count, n) {
        V z = LOAD(A + j, count);
        if (count < LANES)
            z = SELECT(first_lanes(count), z, broadcast(-INFINITY));
        largest = SELECT(largest > z, largest, z);
    }
    real top = largest[0];
    for (ptrdiff_t k = 1; k < LANES; k++)
        top = top > largest[k] ? top : largest[k];

    V total = {0};
    FOR_EACH_VECTOR (j, count, n) {
        const V e = vector_exp(LOAD(A + j, count) - top);
        STORE(A + j, e, count);
        total += count >= LANES ? e : (V)((VB)e & first_lanes(count));
    }
    const real sum = lane_sum(total);
    FOR_EACH_VECTOR (j, count, n)
        STORE(A + j, LOAD(A + j, count) / sum, count);
}

/* delta <- a (delta - sum of a delta) for each row: delta times the Jacobian of softmax. */
static void times_softmax_jacobian(real *delta, const real *A, ptrdiff_t n_rows, ptrdiff_t n,
                                   ptrdiff_t stride) {
    for (; n_rows > 0; n_rows--, delta += stride, A += stride) {
        V parts = {0};
        FOR_EACH_VECTOR (j, count, n)
            parts = multiply_add(LOAD(A + j, count), LOAD(delta + j, count), parts);
        const real sum = lane_sum(parts);
        FOR_EACH_VECTOR (j, count, n)
            STORE(delta + j, LOAD(A + j, count) * (LOAD(delta + j, count) - sum), count);
    }
}

/* Rows are `stride` elements apart; what lies between them may become 0. */
static void softmax(real *A, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    if (n > LANE_COLUMNS)
        for (; n_rows > 0; n_rows--, A += stride)
            softmax_row(A, n);
    for (; n_rows >= LANES; n_rows -= LANES, A += LANES * stride)
        softmax_lanes(A, LANES, n, stride);
    if (n_rows > 0)
        softmax_lanes(A, n_rows, n, stride);
}
