/* Matrices in panels: conversion from and to row-major arrays, and W's transpose.
 *
 * A panel is a block of PANEL_WIDTH = 2 LANES columns, the width of a register tile. Panels lie one
 * after the other, each row-major, so that a tile reads and writes whole aligned vectors, and
 * consecutive k of a panel are consecutive in memory. The last panel is HALF_WIDTH = LANES wide
 * if that is enough; the panel of a matrix of one column has width 1, and so is an ordinary vector.
 * Padding columns hold arbitrary values that never enter a result. With w a panel's width:
 *
 *     A^l and delta^l    [panel of n_l][example][w], with room for `capacity` examples
 *     W^l                [panel of n_l][input][w]
 *     W^l transposed     [panel of n_(l-1)][unit of n_l][w]
 *     b^l                one row of panels
 *
 * In parameters, `panel_width` is PANEL_WIDTH, or the matrix's own width n for a row-major array,
 * which is a single panel; `p` is the index of a panel, and `row` the first of n_rows rows. */

#pragma once

#include "vector.h"

#define PANEL_WIDTH (2 * LANES)
#define HALF_WIDTH LANES
#define CACHE_LINE ((ptrdiff_t)64)

INLINE ptrdiff_t width_of_panel(ptrdiff_t p, ptrdiff_t n) {
    return n == 1 ? 1 : n - p * PANEL_WIDTH <= HALF_WIDTH ? HALF_WIDTH : PANEL_WIDTH;
}

/* The width of the panel that begins at a column. */
INLINE ptrdiff_t width_at(ptrdiff_t column, ptrdiff_t panel_width, ptrdiff_t n) {
    return panel_width == PANEL_WIDTH ? width_of_panel(column / PANEL_WIDTH, n) : panel_width;
}

/* out[j] <- the element at in + j * step bytes. Inlined with constants for all but count, and often
 * for count too. */
INLINE void convert(real *out, const char *in, ptrdiff_t step, ptrdiff_t count,
                    const enum nncore_source source) {
    for (ptrdiff_t j = 0; j < count; j++, in += step)
        if (source == NNCORE_FLOAT32) {
            float x;
            memcpy(&x, in, sizeof x);
            out[j] = (real)x;
        } else if (source == NNCORE_FLOAT64) {
            double x;
            memcpy(&x, in, sizeof x);
            out[j] = (real)x;
        } else
            out[j] = (real) * (const uint8_t *)in;
}

/* Rows are gathered in groups, since one panel's rows are adjacent but a row's panels are far
 * apart; 8 rows saved 10 to 25 % of the time. Hardware cannot predict a shuffled order, so rows are
 * prefetched into L2, which receives some of them during the products before they are gathered. */
#define ROWS_PER_GROUP ((ptrdiff_t)8)
#define BYTES_AHEAD ((ptrdiff_t)16384)

/* Prefetch columns of a row whose elements are adjacent. The last line may begin in between. */
INLINE void prefetch_columns(const char *row, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t step) {
    for (ptrdiff_t byte = begin * step; byte < end * step; byte += CACHE_LINE)
        __builtin_prefetch(row + byte, 0, 1);
    __builtin_prefetch(row + end * step - 1, 0, 1);
}

INLINE void gather_from(real *A, const char *X, const enum nncore_source source,
                        ptrdiff_t row_stride, ptrdiff_t column_stride, const ptrdiff_t *order,
                        ptrdiff_t n_order, ptrdiff_t first, ptrdiff_t panel_width, ptrdiff_t row,
                        ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n) {
    const ptrdiff_t n_whole = panel_width == PANEL_WIDTH ? n - n % PANEL_WIDTH : 0;
    const int is_adjacent = column_stride <= (ptrdiff_t)sizeof(double);
    const ptrdiff_t rows_ahead = ROWS_PER_GROUP + BYTES_AHEAD / (n * (ptrdiff_t)sizeof(real));
    if (n == 1) {
        for (real *a = A + row; n_rows > 0; n_rows--, a++, first++)
            convert(a, X + (order ? order[first] : first) * row_stride, 0, 1, source);
        return;
    }
    for (ptrdiff_t end = row + n_rows; row < end; row += ROWS_PER_GROUP, first += ROWS_PER_GROUP) {
        const ptrdiff_t count = end - row < ROWS_PER_GROUP ? end - row : ROWS_PER_GROUP;
        const char *in[ROWS_PER_GROUP], *ahead[ROWS_PER_GROUP];
        for (ptrdiff_t i = 0; i < count; i++) {
            const ptrdiff_t next = first + i + rows_ahead;
            in[i] = X + (order ? order[first + i] : first + i) * row_stride;
            ahead[i] = order && next < n_order ? X + order[next] * row_stride : in[i];
        }
        for (ptrdiff_t column = 0; column < n_whole; column += PANEL_WIDTH)
            for (ptrdiff_t i = 0; i < count; i++) {
                if (is_adjacent)
                    prefetch_columns(ahead[i], column, column + PANEL_WIDTH, column_stride);
                convert(A + column * capacity + (row + i) * PANEL_WIDTH,
                        in[i] + column * column_stride, column_stride, PANEL_WIDTH, source);
            }
        const ptrdiff_t width = width_at(n_whole, panel_width, n);
        for (ptrdiff_t i = 0; i < count && n_whole < n; i++) {
            if (is_adjacent)
                prefetch_columns(ahead[i], n_whole, n, column_stride);
            convert(A + n_whole * capacity + (row + i) * width, in[i] + n_whole * column_stride,
                    column_stride, n - n_whole, source);
        }
    }
}

static void gather(void *A, const void *X, enum nncore_source source, ptrdiff_t row_stride,
                   ptrdiff_t column_stride, const ptrdiff_t *order, ptrdiff_t n_order,
                   ptrdiff_t first, ptrdiff_t panel_width, ptrdiff_t row, ptrdiff_t n_rows,
                   ptrdiff_t capacity, ptrdiff_t n) {
#define FROM(source, column_stride)                                                               \
    gather_from(A, X, source, row_stride, column_stride, order, n_order, first, panel_width, row, \
                n_rows, capacity, n)
    if (source == NNCORE_FLOAT32 && column_stride == sizeof(float))
        FROM(NNCORE_FLOAT32, sizeof(float));
    else if (source == NNCORE_FLOAT64 && column_stride == sizeof(double))
        FROM(NNCORE_FLOAT64, sizeof(double));
    else if (source == NNCORE_UINT8 && column_stride == 1)
        FROM(NNCORE_UINT8, 1);
    else if (source == NNCORE_FLOAT32)
        FROM(NNCORE_FLOAT32, column_stride);
    else if (source == NNCORE_FLOAT64)
        FROM(NNCORE_FLOAT64, column_stride);
    else
        FROM(NNCORE_UINT8, column_stride);
#undef FROM
}

static void scatter(void *out_, const void *A_, ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity,
                    ptrdiff_t n) {
    real *out = out_;
    const real *A = A_;
    for (ptrdiff_t first = 0; first < n_rows; first += ROWS_PER_GROUP)
        for (ptrdiff_t column = 0; column < n; column += PANEL_WIDTH) {
            const ptrdiff_t rows =
                n_rows - first < ROWS_PER_GROUP ? n_rows - first : ROWS_PER_GROUP;
            const ptrdiff_t width = width_of_panel(column / PANEL_WIDTH, n);
            const ptrdiff_t columns = n - column < width ? n - column : width;
            const real *from = A + column * capacity + (row + first) * width;
            real *to = out + first * n + column;
            if (columns == PANEL_WIDTH)
                for (ptrdiff_t i = 0; i < rows; i++) {
                    store(to + i * n, load(from + i * PANEL_WIDTH));
                    store(to + i * n + LANES, load(from + i * PANEL_WIDTH + LANES));
                }
            else
                for (ptrdiff_t i = 0; i < rows; i++)
                    FOR_EACH_VECTOR (j, left, columns)
                        STORE(to + i * n + j, LOAD(from + i * width + j, left), left);
        }
}

/* Transpose a square of LANES rows by perfect shuffles. Each round rotates the bits of the index
 * (row, column) by one; after log2(LANES) rounds row and column have changed places. */
#if VECTOR_BYTES * 8 / REAL_BITS == 2
#define LOW_HALVES 0, 2
#define HIGH_HALVES 1, 3
#elif VECTOR_BYTES * 8 / REAL_BITS == 4
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#elif VECTOR_BYTES * 8 / REAL_BITS == 8
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VB){__VA_ARGS__})
#endif

INLINE void transpose_square(V *rows) {
    for (ptrdiff_t round = 1; round < LANES; round *= 2) {
        V next[LANES];
        UNROLL for (ptrdiff_t i = 0; i < LANES / 2; i++) {
            next[2 * i] = SHUFFLE(rows[i], rows[i + LANES / 2], LOW_HALVES);
            next[2 * i + 1] = SHUFFLE(rows[i], rows[i + LANES / 2], HIGH_HALVES);
        }
        UNROLL for (ptrdiff_t i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

/* Transpose `rows` rows of W, whose other rows count as 0, and store `columns` of up to LANES
 * columns. The compiler leaves out the shuffles that `most` columns do not need. */
INLINE void transpose_part(real *T, ptrdiff_t T_width, const real *W, const ptrdiff_t width,
                           const ptrdiff_t rows, ptrdiff_t columns, const ptrdiff_t most) {
    V square[LANES];
    UNROLL for (ptrdiff_t i = 0; i < LANES; i++) square[i] =
        i < rows ? load(W + i * width) : (V){0};
    transpose_square(square);
    UNROLL for (ptrdiff_t i = 0; i < most; i++) {
        if (i < columns)
            store(T + i * T_width, square[i]);
    }
}

#define FEW_COLUMNS ((LANES + 3) / 4)

static void transpose(void *W_transposed_, const void *W_, ptrdiff_t p, ptrdiff_t k_begin,
                      ptrdiff_t k_end, ptrdiff_t n_prev, ptrdiff_t n) {
    const ptrdiff_t width = width_of_panel(p, n);
    const real *W = (const real *)W_ + p * PANEL_WIDTH * n_prev;
    if (n == 1 || n_prev == 1) { /* two vectors in the same order */
        const ptrdiff_t begin = n == 1 ? k_begin : p * PANEL_WIDTH;
        const ptrdiff_t end = n == 1 ? k_end : n < begin + PANEL_WIDTH ? n : begin + PANEL_WIDTH;
        memcpy((real *)W_transposed_ + begin, (const real *)W_ + begin,
               (size_t)(end - begin) * sizeof(real));
        return;
    }
    for (ptrdiff_t k = k_begin; k < k_end; k += LANES) {
        const ptrdiff_t offset = k % PANEL_WIDTH; /* k's column in its panel of the transpose */
        const ptrdiff_t T_width = width_of_panel(k / PANEL_WIDTH, n_prev);
        real *T = (real *)W_transposed_ + (k - offset) * n + offset;
        for (ptrdiff_t column = 0; column < width; column += LANES) {
            const ptrdiff_t unit = p * PANEL_WIDTH + column, columns = n - unit;
            const ptrdiff_t rows = n_prev - k < LANES ? n_prev - k : LANES;
            const real *from = W + k * width + column;
            real *to = T + unit * T_width;
            if (columns <= FEW_COLUMNS && width == HALF_WIDTH)
                transpose_part(to, T_width, from, HALF_WIDTH, rows, columns, FEW_COLUMNS);
            else if (rows == LANES)
                transpose_part(to, T_width, from, width, LANES, columns, LANES);
            else
                transpose_part(to, T_width, from, width, rows, columns, LANES);
        }
    }
}
