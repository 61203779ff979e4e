/* The products (1), (4) and (5) in register tiles, over matrices in panels (panels.h).
 * Every product has one form: the sums of some rows and one panel's columns stay in registers,
 *
 *     C[row][panel] = sum over k of a(row, k) * B[k][panel],
 *
 * where B's rows are loaded in their order, and a(row, k), whose rows and whose k lie at fixed
 * distances, is broadcast. */

#pragma once

#include "activations.h"
#include "panels.h"
#include "vector.h"

/* The most rows of a tile of full and of half width. Beside the sums, a tile needs registers for
 * two vectors of B and one broadcast: 2 x 6 sums fill the 16 registers of SSE2 and AVX2, 2 x 12
 * most of the 32 of AVX-512 and NEON. */
#define HALF_ROWS 12
#define UP_TO_6(X, ...) \
    X(1, __VA_ARGS__)   \
    X(2, __VA_ARGS__)   \
    X(3, __VA_ARGS__)   \
    X(4, __VA_ARGS__)   \
    X(5, __VA_ARGS__)   \
    X(6, __VA_ARGS__)
#define UP_TO_12(X, ...)    \
    UP_TO_6(X, __VA_ARGS__) \
    X(7, __VA_ARGS__)       \
    X(8, __VA_ARGS__)       \
    X(9, __VA_ARGS__)       \
    X(10, __VA_ARGS__)      \
    X(11, __VA_ARGS__)      \
    X(12, __VA_ARGS__)
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define FULL_ROWS 12
#define UP_TO_FULL_ROWS UP_TO_12
#else
#define FULL_ROWS 6
#define UP_TO_FULL_ROWS UP_TO_6
#endif
/* X(rows, vectors, is_narrow) for a tile in a panel of this width with so many columns in use. */
#define SELECT_TILE(X, rows, width, columns)       \
    if (width == PANEL_WIDTH)                      \
        switch (rows) { UP_TO_FULL_ROWS(X, 2, 0) } \
    else if (columns > NARROW_COLUMNS)             \
        switch (rows) { UP_TO_12(X, 1, 0) }        \
    else                                           \
        switch (rows) { UP_TO_12(X, 1, 1) }

/* How many k are summed before the next rows begin, in (1) and (4). B's part has 2 VECTOR_BYTES per
 * k. With AVX-512 a tile of 12 rows takes 5 bytes of it per cycle, which L2 supplies in time; with
 * shorter vectors it takes more, so the part stays in L1. */
#define INNER_BLOCK ((ptrdiff_t)(VECTOR_BYTES == 64 ? 1024 : 256))

/* The same for (5), whose k are examples. They are summed in groups, since a loop of 256 rounds
 * would end with a wrong prediction. */
#define EXAMPLE_BLOCK ((ptrdiff_t)256)
#define EXAMPLE_GROUP ((ptrdiff_t)(VECTOR_BYTES == 64 ? 4 : 16))

/* Rows are divided evenly: 7 rows in tiles of at most 6 make 4 and 3, not 6 and 1. */
struct tiles {
    ptrdiff_t count, rows, larger; /* the first `larger` of them have rows + 1 */
};

INLINE struct tiles tiles_of(ptrdiff_t rows, ptrdiff_t most) {
    if (rows <= most) /* a small step notices the divisions */
        return (struct tiles){1, rows, 0};
    const ptrdiff_t count = (rows + most - 1) / most;
    return (struct tiles){count, rows / count, rows % count};
}

/* Where so few columns of a panel are in use, a tile sums half vectors only. */
#define NARROW_COLUMNS (HAS_HALF_VECTORS ? LANES / 2 : 0)

INLINE void accumulate_narrow(V *sums, const real *B, const real *a, ptrdiff_t count,
                              const ptrdiff_t rows, const ptrdiff_t row_step,
                              const ptrdiff_t k_step) {
#if HAS_HALF_VECTORS
    H halves[HALF_ROWS];
    UNROLL for (ptrdiff_t row = 0; row < rows; row++) halves[row] = low_half(sums[row]);
    for (ptrdiff_t k = 0; k < count; k++) {
        const H b = low_half(load(B + k * LANES));
        UNROLL for (ptrdiff_t row = 0; row < rows; row++) halves[row] =
            half_multiply_add(a[row * row_step + k * k_step] - (H){0}, b, halves[row]);
    }
    UNROLL for (ptrdiff_t row = 0; row < rows; row++) sums[row] = from_half(halves[row]);
#endif
}

/* Unrolling the loop over k takes more than 16 registers. */
#if VECTOR_BYTES == 64
#define FOR_EACH_K for
#else
#define FOR_EACH_K _Pragma("GCC unroll 1") for
#endif

/* sums[row][v] += sum over k < count of a[row * row_step + k * k_step] * B[k][v]. Inlined with
 * constant rows and vectors, and mostly constant steps and count. */
INLINE void accumulate(V *sums, const real *B, const real *a, ptrdiff_t count, const ptrdiff_t rows,
                       const ptrdiff_t vectors, const int is_narrow, const ptrdiff_t row_step,
                       const ptrdiff_t k_step) {
    if (is_narrow) {
        accumulate_narrow(sums, B, a, count, rows, row_step, k_step);
        return;
    }
    FOR_EACH_K(ptrdiff_t k = 0; k < count; k++) {
        V b[2];
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) b[v] = load(B + (k * vectors + v) * LANES);
        UNROLL for (ptrdiff_t row = 0; row < rows; row++) {
            const V x = broadcast(a[row * row_step + k * k_step]);
            UNROLL for (ptrdiff_t v = 0; v < vectors; v++) sums[row * vectors + v] =
                multiply_add(x, b[v], sums[row * vectors + v]);
        }
    }
}

/* (1) or (4) for rows `row` to `row + n_rows`: C <- f(bias + A B). */
struct product {
    real *C;
    const real *A;
    ptrdiff_t A_stride; /* 0 for panels, or the distance of a row-major array's rows */
    const real *B, *bias;
    ptrdiff_t row, n_rows, capacity, n_inner, n;
    /* Fused forward is max(sum, least), with least = 0 for ReLU; backward sigma' from A_prev, which
     * lies as C does, unless that is NULL. */
    real least;
    const real *A_prev;
    enum nncore_activation activation;
};

INLINE int fuses_derivative(nncore_sigma sigma) {
    return sigma.kind == NNCORE_RELU || sigma.kind == NNCORE_SIGMOID || sigma.kind == NNCORE_TANH;
}

/* For ReLU a NaN of an inactive unit ends here. */
INLINE void finish(V *sums, const struct product product, const real *C, const ptrdiff_t count) {
    if (!product.A_prev) {
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] =
            at_least(sums[i], broadcast(product.least));
        return;
    }
    const real *A_prev = product.A_prev + (C - product.C);
    if (product.activation == NNCORE_RELU)
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] =
            (V)((VB)sums[i] & (VB)(load(A_prev + i * LANES) > 0));
    else if (product.activation == NNCORE_SIGMOID)
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] *=
            SIGMOID_DERIVATIVE(load(A_prev + i * LANES));
    else
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] *=
            TANH_DERIVATIVE(load(A_prev + i * LANES));
}

/* A tile's sum over inputs k_begin to k_end: C[row] = start + sum over k of A[row][k] B[k], where
 * start is one row for all (start_step 0) or a row each. Meanwhile it prefetches the next panel of
 * A and, from `ahead` on, n_ahead bytes per panel. */
INLINE void row_tile(real *C, const real *start, ptrdiff_t start_step, const real *B,
                     const struct product product, ptrdiff_t row, ptrdiff_t k_begin,
                     ptrdiff_t k_end, const char *ahead, ptrdiff_t n_ahead, const ptrdiff_t rows,
                     const ptrdiff_t vectors, const int is_narrow) {
    const ptrdiff_t A_stride = product.A_stride, capacity = product.capacity;
    V sums[2 * FULL_ROWS];
    UNROLL for (ptrdiff_t r = 0; r < rows; r++) UNROLL for (ptrdiff_t v = 0; v < vectors; v++)
        sums[r * vectors + v] = load(start + r * start_step + v * LANES);
    B += k_begin * vectors * LANES;
    if (A_stride) {
        const real *a = product.A + row * A_stride + k_begin;
        accumulate(sums, B, a, k_end - k_begin, rows, vectors, is_narrow, A_stride, 1);
    } else {
        const real *a = product.A + k_begin * capacity + row * PANEL_WIDTH;
        ptrdiff_t left = k_end - k_begin;
        for (; left >= PANEL_WIDTH;
             left -= PANEL_WIDTH, a += PANEL_WIDTH * capacity, B += PANEL_WIDTH * vectors * LANES) {
            const char *next = (const char *)(a + PANEL_WIDTH * capacity);
            for (const char *end = ahead + n_ahead; ahead < end; ahead += CACHE_LINE)
                __builtin_prefetch(ahead);
            UNROLL for (ptrdiff_t byte = 0; byte < rows * 2 * VECTOR_BYTES; byte += CACHE_LINE)
                __builtin_prefetch(next + byte);
            accumulate(sums, B, a, PANEL_WIDTH, rows, vectors, is_narrow, PANEL_WIDTH, 1);
        }
        if (left > HALF_WIDTH)
            accumulate(sums, B, a, left, rows, vectors, is_narrow, PANEL_WIDTH, 1);
        else
            accumulate(sums, B, a - row * HALF_WIDTH, left, rows, vectors, is_narrow, HALF_WIDTH,
                       1);
    }
    if (k_end == product.n_inner)
        finish(sums, product, C, rows * vectors);
    UNROLL for (ptrdiff_t i = 0; i < rows * vectors; i++) store(C + i * LANES, sums[i]);
}

/* Panel p of C. While a block of B is in use, its tiles prefetch the next one, in equal parts. A
 * single tile prefetches less than it reads: a small matrix is in the cache. */
static void tiled_product(const struct product product, ptrdiff_t p) {
    static const real zeros[PANEL_WIDTH];
    const ptrdiff_t n_rows = product.n_rows, n_inner = product.n_inner;
    const ptrdiff_t width = width_of_panel(p, product.n);
    real *C = product.C + p * PANEL_WIDTH * product.capacity;
    const real *B = product.B + p * PANEL_WIDTH * n_inner;
    const real *bias = product.bias ? product.bias + p * PANEL_WIDTH : zeros;
    const struct tiles tiles = tiles_of(n_rows, width == PANEL_WIDTH ? FULL_ROWS : HALF_ROWS);
    const ptrdiff_t lines = PANEL_WIDTH * width * (ptrdiff_t)sizeof(real) / CACHE_LINE;
    const ptrdiff_t n_ahead =
        CACHE_LINE * (tiles.count > 1 ? (lines + tiles.count - 1) / tiles.count : 2);
    for (ptrdiff_t k = 0; k < n_inner; k += INNER_BLOCK) {
        const ptrdiff_t k_end = n_inner - k < INNER_BLOCK ? n_inner : k + INNER_BLOCK;
        const char *ahead = (const char *)(B + k_end * width);
        const ptrdiff_t n_panels = (k_end - k) / PANEL_WIDTH;
        for (ptrdiff_t i = 0, r = product.row, rows; i < tiles.count; i++, r += rows) {
            real *c = C + r * width;
            rows = tiles.rows + (i < tiles.larger);
#define X(R, VECTORS, IS_NARROW)                                                             \
    case R:                                                                                  \
        row_tile(c, k ? c : bias, k ? width : 0, B, product, r, k, k_end, ahead, n_ahead, R, \
                 VECTORS, IS_NARROW);                                                        \
        break;
            SELECT_TILE(X, rows, width, product.n - p * PANEL_WIDTH)
#undef X
            ahead += n_panels * n_ahead;
        }
    }
}

/* A tile of (5): dW[row] = beta dW[row] + scale sum over examples of A_prev[example][row] delta.
 * For beta 0 dW is not read, for beta 1 not multiplied. */
INLINE void gradient_tile(real *dW, const real *A_prev, const real *delta, real scale, real beta,
                          ptrdiff_t n_examples, const ptrdiff_t rows, const ptrdiff_t vectors,
                          const int is_narrow, const ptrdiff_t A_width) {
    const V scales = broadcast(scale), betas = broadcast(beta);
    V sums[2 * FULL_ROWS];
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) sums[r] = (V){0};
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) __builtin_prefetch(dW + r * LANES);
    for (; n_examples >= EXAMPLE_GROUP; n_examples -= EXAMPLE_GROUP) {
        accumulate(sums, delta, A_prev, EXAMPLE_GROUP, rows, vectors, is_narrow, 1, A_width);
        A_prev += EXAMPLE_GROUP * A_width;
        delta += EXAMPLE_GROUP * vectors * LANES;
    }
    accumulate(sums, delta, A_prev, n_examples, rows, vectors, is_narrow, 1, A_width);
    if (beta == 1)
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) sums[r] =
            multiply_add(scales, sums[r], load(dW + r * LANES));
    else if (beta == 0)
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) sums[r] *= scales;
    else
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) sums[r] =
            multiply_add(scales, sums[r], betas * load(dW + r * LANES));
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) store(dW + r * LANES, sums[r]);
}

/* Rows of dW within one panel of A_prev; `columns` of dW are in use. */
INLINE void gradient_rows(real *dW, const real *a, const real *delta, real scale, real beta,
                          ptrdiff_t n_examples, ptrdiff_t n_rows, const ptrdiff_t width,
                          ptrdiff_t columns, const ptrdiff_t A_width) {
    if (n_rows == PANEL_WIDTH && width == PANEL_WIDTH && A_width == PANEL_WIDTH) {
        /* The common case, with the numbers of rows known to the compiler. */
        const struct tiles tiles = tiles_of(PANEL_WIDTH, FULL_ROWS);
        const ptrdiff_t first = tiles.rows + (tiles.larger > 0);
        const ptrdiff_t second = tiles.count > 1 ? tiles.rows + (tiles.larger > 1) : 0;
        const ptrdiff_t third = PANEL_WIDTH - first - second;
        gradient_tile(dW, a, delta, scale, beta, n_examples, first, 2, 0, PANEL_WIDTH);
        dW += first * PANEL_WIDTH;
        if (second)
            gradient_tile(dW, a + first, delta, scale, beta, n_examples, second, 2, 0, PANEL_WIDTH);
        dW += second * PANEL_WIDTH;
        if (third)
            gradient_tile(dW, a + first + second, delta, scale, beta, n_examples, third, 2, 0,
                          PANEL_WIDTH);
        return;
    }
    const struct tiles tiles = tiles_of(n_rows, width == PANEL_WIDTH ? FULL_ROWS : HALF_ROWS);
    for (ptrdiff_t i = 0, r = 0, rows; i < tiles.count; i++, r += rows) {
        rows = tiles.rows + (i < tiles.larger);
#define X(R, VECTORS, IS_NARROW)                                                         \
    case R:                                                                              \
        gradient_tile(dW + r * width, a + r, delta, scale, beta, n_examples, R, VECTORS, \
                      IS_NARROW, A_width);                                               \
        break;
        SELECT_TILE(X, rows, width, columns)
#undef X
    }
}
