/* The products (1), (4) and (5) in register tiles, over matrices that lie in panels (panels.h).
 * Every product has one form: a tile of some rows and one panel's columns is held in registers,
 *
 *     C[row][panel] = sum over k of a(row, k) * B[k][panel],
 *
 * where B is read as it lies and a(row, k) is broadcast from a place that is a constant away from
 * that of the row before and of the k before. A template, see vector.h. */

/* The most rows of a tile that is a full or half a panel wide. With two vectors of B and the value
 * that is broadcast, 2 x 6 sums fill the 16 registers of SSE2 and AVX2, 2 x 12 most of 32. */
#define HALF_ROWS 12
#define FOR_EACH_HALF_ROWS(X) \
    X(1, 1)                   \
    X(2, 1)                   \
    X(3, 1)                   \
    X(4, 1)                   \
    X(5, 1) X(6, 1) X(7, 1) X(8, 1) X(9, 1) X(10, 1) X(11, 1) X(12, 1)
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define FULL_ROWS 12
#define FOR_EACH_FULL_ROWS(X) \
    X(1, 2)                   \
    X(2, 2)                   \
    X(3, 2)                   \
    X(4, 2)                   \
    X(5, 2) X(6, 2) X(7, 2) X(8, 2) X(9, 2) X(10, 2) X(11, 2) X(12, 2)
#else
#define FULL_ROWS 6
#define FOR_EACH_FULL_ROWS(X) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(5, 2) X(6, 2)
#endif

/* How much of the inner dimension is summed before the next rows are taken: B's part stays in L1.
 */
#define INNER_BLOCK ((ptrdiff_t)(NNCORE_DOUBLE ? 128 : 256))
#define EXAMPLE_BLOCK ((ptrdiff_t)128)

/* Rows are dealt out evenly: 7 rows in tiles of at most 6 make 4 and 3, not 6 and 1. */
typedef struct {
    ptrdiff_t count, few, with_more; /* these first ones have a row more than `few` */
} NAME(tiles_t);

INLINE NAME(tiles_t) NAME(tiles_of)(ptrdiff_t rows, ptrdiff_t most) {
    const ptrdiff_t count = rows > 0 ? (rows + most - 1) / most : 1;
    return (NAME(tiles_t)){count, rows / count, rows % count};
}

/* acc[row][v] += sum over k < count of a[row * row_step + k * k_step] * B[k][v]. Everything but
 * count is a constant where this is inlined. */
INLINE void NAME(multiply_add)(V *acc, const real *B, const real *a, ptrdiff_t count,
                               const ptrdiff_t rows, const ptrdiff_t vectors,
                               const ptrdiff_t row_step, const ptrdiff_t k_step) {
    for (ptrdiff_t k = 0; k < count; k++) {
        V b[2];
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) b[v] =
            NAME(load)(B + (k * vectors + v) * LANES);
        UNROLL for (ptrdiff_t row = 0; row < rows; row++) {
            const V x = NAME(all)(a[row * row_step + k * k_step]);
            UNROLL for (ptrdiff_t v = 0; v < vectors; v++) acc[row * vectors + v] =
                NAME(fma)(x, b[v], acc[row * vectors + v]);
        }
    }
}

/* (1) or (4) for rows `row` to `row + n_rows`: C <- f(bias + A B). */
typedef struct {
    real *C;
    /* In panels, or, where A_stride is not 0, in rows that far apart. */
    const real *A;
    ptrdiff_t A_stride;
    const real *B, *bias;
    ptrdiff_t row, n_rows, capacity, n_inner, n;
    /* f is the part of sigma or sigma' that is done while the sums are in registers, since it is
     * but a comparison: the larger of a sum and `least`, or, with a gate, which lies as C does, 0
     * where that is not above 0, whatever the sum: a unit that is off passes no NaN on. */
    real least;
    const real *gate;
} NAME(product_t);

INLINE void NAME(finish)(V *sums, const NAME(product_t) product, const real *C,
                         const ptrdiff_t count) {
    if (product.gate) {
        const real *gate = product.gate + (C - product.C);
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] =
            (V)((VB)sums[i] & (VB)(NAME(load)(gate + i * LANES) > 0));
    } else
        UNROLL for (ptrdiff_t i = 0; i < count; i++) sums[i] =
            NAME(at_least)(sums[i], NAME(all)(product.least));
}

/* A tile's share of inputs k_begin to k_end: C[row] = start + sum over k of A[row][k] B[k], where
 * `start` is a row for all (start_step 0) or one for each. Meanwhile what is next is asked for: of
 * A the next panel, and two cache lines per panel, `soon` and on. */
INLINE void NAME(row_tile)(real *C, const real *start, ptrdiff_t start_step, const real *B,
                           const NAME(product_t) product, ptrdiff_t row, ptrdiff_t k_begin,
                           ptrdiff_t k_end, const char *soon, const ptrdiff_t rows,
                           const ptrdiff_t vectors) {
    const ptrdiff_t A_stride = product.A_stride, capacity = product.capacity;
    V acc[2 * FULL_ROWS];
    UNROLL for (ptrdiff_t r = 0; r < rows; r++) UNROLL for (ptrdiff_t v = 0; v < vectors; v++)
        acc[r * vectors + v] = NAME(load)(start + r * start_step + v * LANES);
    B += k_begin * vectors * LANES;
    if (A_stride) {
        const real *a = product.A + row * A_stride + k_begin;
        NAME(multiply_add)(acc, B, a, k_end - k_begin, rows, vectors, A_stride, 1);
    } else {
        const real *a = product.A + k_begin * capacity;
        ptrdiff_t left = k_end - k_begin;
        for (; left >= PANEL; left -= PANEL, a += PANEL * capacity, B += PANEL * vectors * LANES) {
            __builtin_prefetch(soon);
            __builtin_prefetch(soon + LINE);
            soon += PANEL * vectors * VECTOR_BYTES;
            UNROLL for (ptrdiff_t r = 0; r < rows; r++)
                __builtin_prefetch(a + PANEL * capacity + (row + r) * PANEL);
            NAME(multiply_add)(acc, B, a + row * PANEL, PANEL, rows, vectors, PANEL, 1);
        }
        if (left > HALF)
            NAME(multiply_add)(acc, B, a + row * PANEL, left, rows, vectors, PANEL, 1);
        else
            NAME(multiply_add)(acc, B, a + row * HALF, left, rows, vectors, HALF, 1);
    }
    if (k_end == product.n_inner)
        NAME(finish)(acc, product, C, rows * vectors);
    UNROLL for (ptrdiff_t i = 0; i < rows * vectors; i++) NAME(store)(C + i * LANES, acc[i]);
}

/* Panel p of C. While a block of B is worked on, its tiles ask for the next, each for a part. */
static void NAME(tiled_product)(const NAME(product_t) product, ptrdiff_t p) {
    static const real zeros[PANEL];
    const ptrdiff_t n_rows = product.n_rows, n_inner = product.n_inner;
    const ptrdiff_t width = NAME(panel_width)(p, product.n);
    real *C = product.C + p * PANEL * product.capacity;
    const real *B = product.B + p * PANEL * n_inner;
    const real *bias = product.bias ? product.bias + p * PANEL : zeros;
    const NAME(tiles_t) tiles = NAME(tiles_of)(n_rows, width == PANEL ? FULL_ROWS : HALF_ROWS);
    for (ptrdiff_t k = 0; k < n_inner; k += INNER_BLOCK) {
        const ptrdiff_t k_end = n_inner - k < INNER_BLOCK ? n_inner : k + INNER_BLOCK;
        const char *soon = (const char *)(B + k_end * width);
        for (ptrdiff_t i = 0, r = product.row, rows; i < tiles.count; i++, r += rows) {
            real *c = C + r * width;
            rows = tiles.few + (i < tiles.with_more);
#define X(R, VECTORS)                                                                              \
    case R:                                                                                        \
        NAME(row_tile)(c, k ? c : bias, k ? width : 0, B, product, r, k, k_end, soon, R, VECTORS); \
        break;
            if (width == PANEL)
                switch (rows) { FOR_EACH_FULL_ROWS(X) }
            else
                switch (rows) { FOR_EACH_HALF_ROWS(X) }
#undef X
            soon += 2 * LINE;
        }
    }
}

/* A tile of (5): dW[row] = beta dW[row] + scale sum over examples of A_prev[example][row] delta;
 * where beta is 0 what dW holds is not read, where it is 1 a multiplication is spared. */
INLINE void NAME(gradient_tile)(real *dW, const real *A_prev, const real *delta, real scale,
                                real beta, ptrdiff_t n_examples, const ptrdiff_t rows,
                                const ptrdiff_t vectors, const ptrdiff_t A_width) {
    const V scales = NAME(all)(scale), betas = NAME(all)(beta);
    V acc[2 * FULL_ROWS];
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) acc[r] = (V){0};
    NAME(multiply_add)(acc, delta, A_prev, n_examples, rows, vectors, 1, A_width);
    if (beta == 1)
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) acc[r] =
            NAME(fma)(scales, acc[r], NAME(load)(dW + r * LANES));
    else if (beta == 0)
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) acc[r] *= scales;
    else
        UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) acc[r] =
            NAME(fma)(scales, acc[r], betas * NAME(load)(dW + r * LANES));
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) NAME(store)(dW + r * LANES, acc[r]);
}

/* Rows of dW within one panel of A_prev. */
INLINE void NAME(gradient_rows)(real *dW, const real *a, const real *delta, real scale, real beta,
                                ptrdiff_t n_examples, ptrdiff_t n_rows, const ptrdiff_t width,
                                const ptrdiff_t A_width) {
    if (n_rows == PANEL && width == PANEL && A_width == PANEL) {
        /* The common case, with all numbers of rows known to the compiler. */
        const NAME(tiles_t) tiles = NAME(tiles_of)(PANEL, FULL_ROWS);
        const ptrdiff_t first = tiles.few + (tiles.with_more > 0);
        const ptrdiff_t second = tiles.count > 1 ? tiles.few + (tiles.with_more > 1) : 0;
        const ptrdiff_t third = PANEL - first - second;
        NAME(gradient_tile)(dW, a, delta, scale, beta, n_examples, first, 2, PANEL);
        dW += first * PANEL;
        if (second)
            NAME(gradient_tile)(dW, a + first, delta, scale, beta, n_examples, second, 2, PANEL);
        dW += second * PANEL;
        if (third)
            NAME(gradient_tile)(dW, a + first + second, delta, scale, beta, n_examples, third, 2,
                                PANEL);
        return;
    }
    const NAME(tiles_t) tiles = NAME(tiles_of)(n_rows, width == PANEL ? FULL_ROWS : HALF_ROWS);
    for (ptrdiff_t i = 0, r = 0, rows; i < tiles.count; i++, r += rows) {
        rows = tiles.few + (i < tiles.with_more);
#define X(R, VECTORS)                                                                          \
    case R:                                                                                    \
        NAME(gradient_tile)(dW + r * width, a + r, delta, scale, beta, n_examples, R, VECTORS, \
                            A_width);                                                          \
        break;
        if (width == PANEL)
            switch (rows) { FOR_EACH_FULL_ROWS(X) }
        else
            switch (rows) { FOR_EACH_HALF_ROWS(X) }
#undef X
    }
}
