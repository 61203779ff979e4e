/* The products (1), (4) and (5) in register tiles, over matrices that lie in panels.
 *
 * A panel is PANEL = 2 LANES columns wide; the last one of a matrix is HALF as wide where that is
 * enough. The padding is never summed over. With w the panel's width,
 *
 *     A^l and delta^l lie as [panel][example][w], with room for `capacity` examples,
 *     W^l             lies as [panel of n_l][input][w],
 *     W^l transposed  lies as [panel of n_(l-1)][unit of n_l][w].
 *
 * So every product has one form: a tile of some rows and one panel's columns is held in registers,
 *
 *     C[row][panel] = sum over k of a(row, k) * B[k][panel],
 *
 * where B is read as it lies and a(row, k) is broadcast from a place that is a constant away from
 * that of the row before and of the k before. A template, see vector.h. */

#define PANEL (2 * LANES)
#define HALF LANES

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
#define LINE ((ptrdiff_t)64)
#define UNROLL _Pragma("GCC unroll 24")

/* How much of the inner dimension is summed before the next rows are taken: B's part stays in L1.
 */
#define INNER_BLOCK ((ptrdiff_t)(NNCORE_DOUBLE ? 128 : 256))
#define EXAMPLE_BLOCK ((ptrdiff_t)128)

INLINE ptrdiff_t NAME(panel_width)(ptrdiff_t p, ptrdiff_t n) {
    return n - p * PANEL <= HALF ? HALF : PANEL;
}

/* Rows are dealt out evenly: 7 rows in tiles of 6 make 4 and 3, not 6 and 1. */
INLINE ptrdiff_t NAME(next_rows)(ptrdiff_t rows, ptrdiff_t most) {
    const ptrdiff_t tiles = (rows + most - 1) / most;
    return tiles ? (rows + tiles - 1) / tiles : 0;
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

/* A tile of (1) or (4): C[row] = start + sum over k of A[row][k] B[k], where `start` is `bias`, or
 * 0, or, in all blocks of k but the first, what C holds. A lies in panels, or, where A_stride is
 * not 0, in rows that far apart. Meanwhile what is next of A is asked for, the next panel or the
 * n_rows after these, and two cache lines per panel, `soon` and on. */
INLINE void NAME(row_tile)(real *C, const real *A, ptrdiff_t A_stride, const real *B,
                           const real *bias, int first, ptrdiff_t row, ptrdiff_t n_rows,
                           ptrdiff_t capacity, ptrdiff_t k_begin, ptrdiff_t k_end,
                           ptrdiff_t n_inner, const char *soon, const ptrdiff_t rows,
                           const ptrdiff_t vectors) {
    V acc[2 * FULL_ROWS];
    UNROLL for (ptrdiff_t r = 0; r < rows; r++) UNROLL for (ptrdiff_t v = 0; v < vectors; v++)
        acc[r * vectors + v] = !first ? NAME(load)(C + (r * vectors + v) * LANES)
                               : bias ? NAME(load)(bias + v * LANES)
                                      : (V){0};
    for (ptrdiff_t k = k_begin; k < k_end; k += PANEL) {
        const ptrdiff_t count = k_end - k < PANEL ? k_end - k : PANEL;
        const ptrdiff_t width = n_inner - k > HALF ? PANEL : HALF;
        const real *a = A_stride ? A + k + row * A_stride : A + k * capacity + row * width;
        const real *next = a + (A_stride ? n_rows * A_stride : PANEL * capacity);
        const real *b = B + k * vectors * LANES;
        if (k + PANEL < n_inner || A_stride) {
            __builtin_prefetch(soon);
            __builtin_prefetch(soon + LINE);
            UNROLL for (ptrdiff_t r = 0; r < rows; r++)
                __builtin_prefetch(next + r * (A_stride ? A_stride : PANEL));
        }
        soon += PANEL * vectors * VECTOR_BYTES;
        if (A_stride)
            NAME(multiply_add)(acc, b, a, count, rows, vectors, A_stride, 1);
        else if (width == PANEL)
            NAME(multiply_add)(acc, b, a, count, rows, vectors, PANEL, 1);
        else
            NAME(multiply_add)(acc, b, a, count, rows, vectors, HALF, 1);
    }
    UNROLL for (ptrdiff_t r = 0; r < rows * vectors; r++) NAME(store)(C + r * LANES, acc[r]);
}

/* C <- bias + A B for rows `row` to `row + n_rows` of panel p. While a block of B is worked on, its
 * tiles ask for the next, each for a part. */
static void NAME(product)(real *C, const real *A, ptrdiff_t A_stride, const real *B,
                          const real *bias, ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity,
                          ptrdiff_t n_inner, ptrdiff_t p, ptrdiff_t n) {
    const ptrdiff_t width = NAME(panel_width)(p, n);
    C += p * PANEL * capacity;
    B += p * PANEL * n_inner;
    if (bias)
        bias += p * PANEL;
    for (ptrdiff_t k = 0; k < n_inner; k += INNER_BLOCK) {
        const ptrdiff_t k_end = n_inner - k < INNER_BLOCK ? n_inner : k + INNER_BLOCK;
        const char *soon = (const char *)(B + k_end * width);
        for (ptrdiff_t r = row, rows; r < row + n_rows; r += rows, soon += 2 * LINE) {
            real *c = C + r * width;
#define X(R, VECTORS)                                                                           \
    case R:                                                                                     \
        NAME(row_tile)(c, A, A_stride, B, bias, k == 0, r, n_rows, capacity, k, k_end, n_inner, \
                       soon, R, VECTORS);                                                       \
        break;
            if (width == PANEL) {
                rows = NAME(next_rows)(row + n_rows - r, FULL_ROWS);
                switch (rows) { FOR_EACH_FULL_ROWS(X) }
            } else {
                rows = NAME(next_rows)(row + n_rows - r, HALF_ROWS);
                switch (rows) { FOR_EACH_HALF_ROWS(X) }
            }
#undef X
        }
    }
}

static void NAME(forward)(void *A_, const void *A_prev, ptrdiff_t A_stride, const void *W,
                          const void *b_, enum nncore_activation activation, ptrdiff_t row,
                          ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *A = A_;
    for (ptrdiff_t p = 0; p * PANEL < n; p++) {
        const ptrdiff_t width = NAME(panel_width)(p, n);
        NAME(product)(A, A_prev, A_stride, W, b_, row, n_rows, capacity, n_prev, p, n);
        NAME(bias_activation)(A + p * PANEL * capacity + row * width, NULL, activation, n_rows,
                              width);
    }
}

/* (1) for a few rows, without panels: up to PLAIN_VECTORS columns of W at once, as it lies. */
#define PLAIN_ROWS 2
#define PLAIN_VECTORS 4

/* The vectors begin at the columns given, which may overlap at the end of a row: the same sums are
 * then stored twice. With fewer columns than lanes there is one vector with `count` of them. */
INLINE void NAME(plain_tile)(real *C, const real *A, const real *W, const real *b,
                             const ptrdiff_t *columns, ptrdiff_t count, ptrdiff_t n_prev,
                             ptrdiff_t n, const ptrdiff_t rows, const ptrdiff_t vectors,
                             const int whole) {
    V acc[PLAIN_ROWS * PLAIN_VECTORS], w[PLAIN_VECTORS];
    UNROLL for (ptrdiff_t v = 0; v < vectors; v++) {
        w[v] = whole ? NAME(load)(b + columns[v]) : NAME(load_some)(b, count);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) acc[r * vectors + v] = w[v];
    }
    for (ptrdiff_t k = 0; k < n_prev; k++, W += n) {
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) w[v] =
            whole ? NAME(load)(W + columns[v]) : NAME(load_some)(W, count);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) {
            const V x = NAME(all)(A[r * n_prev + k]);
            UNROLL for (ptrdiff_t v = 0; v < vectors; v++) acc[r * vectors + v] =
                NAME(fma)(x, w[v], acc[r * vectors + v]);
        }
    }
    UNROLL for (ptrdiff_t r = 0; r < rows; r++)
        UNROLL for (ptrdiff_t v = 0; v < vectors; v++) if (whole)
            NAME(store)(C + r * n + columns[v], acc[r * vectors + v]);
    else NAME(store_some)(C + r * n, acc[r * vectors + v], count);
}

static void NAME(forward_plain)(void *A_, const void *A_prev_, const void *W, const void *b,
                                enum nncore_activation activation, ptrdiff_t n_rows,
                                ptrdiff_t n_prev, ptrdiff_t n) {
    real *A = A_;
    const real *A_prev = A_prev_;
    for (ptrdiff_t row = 0; row < n_rows; row += PLAIN_ROWS)
        for (ptrdiff_t column = 0; column < n; column += PLAIN_VECTORS * LANES) {
            real *C = A + row * n;
            const real *a = A_prev + row * n_prev;
            const ptrdiff_t rows = n_rows - row < PLAIN_ROWS ? n_rows - row : PLAIN_ROWS;
            ptrdiff_t columns[PLAIN_VECTORS], vectors = 0;
            for (; vectors < PLAIN_VECTORS && column + vectors * LANES < n; vectors++) {
                const ptrdiff_t begin = column + vectors * LANES;
                columns[vectors] = begin + LANES <= n ? begin : n - LANES;
            }
            switch (n < LANES ? 0 : vectors) {
#define X(VECTORS, WHOLE)                                                                \
    if (rows == 1)                                                                       \
        NAME(plain_tile)(C, a, W, b, columns, n, n_prev, n, 1, VECTORS, WHOLE);          \
    else                                                                                 \
        NAME(plain_tile)(C, a, W, b, columns, n, n_prev, n, PLAIN_ROWS, VECTORS, WHOLE); \
    break;
            case 0:
                X(1, 0)
            case 1:
                X(1, 1)
            case 2:
                X(2, 1)
            case 3:
                X(3, 1)
            case 4:
                X(4, 1)
#undef X
            }
        }
    NAME(bias_activation)(A, NULL, activation, n_rows, n);
}

static void NAME(delta)(void *delta_prev_, const void *delta, const void *W_transposed,
                        const void *A_prev_, enum nncore_activation activation, ptrdiff_t row,
                        ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *delta_prev = delta_prev_;
    const real *A_prev = A_prev_;
    for (ptrdiff_t p = 0; p * PANEL < n_prev; p++) {
        const ptrdiff_t width = NAME(panel_width)(p, n_prev);
        const ptrdiff_t at = p * PANEL * capacity + row * width;
        NAME(product)(delta_prev, delta, 0, W_transposed, NULL, row, n_rows, capacity, n, p,
                      n_prev);
        NAME(times_derivative)(delta_prev + at, A_prev + at, activation, n_rows * width);
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
        const ptrdiff_t first = NAME(next_rows)(PANEL, FULL_ROWS);
        const ptrdiff_t second = NAME(next_rows)(PANEL - first, FULL_ROWS);
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
    const ptrdiff_t most = width == PANEL ? FULL_ROWS : HALF_ROWS;
    for (ptrdiff_t r = 0, rows; r < n_rows; r += rows) {
        rows = NAME(next_rows)(n_rows - r, most);
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

static void NAME(gradient)(void *dW_, const void *delta_, const void *A_prev_, double scale_,
                           double beta_, ptrdiff_t panel_step, ptrdiff_t p_begin, ptrdiff_t p_end,
                           ptrdiff_t k_begin, ptrdiff_t k_end, ptrdiff_t n_examples,
                           ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    const ptrdiff_t width = NAME(panel_width)(p_begin, n);
    const real scale = (real)scale_;
    for (ptrdiff_t i = 0; i < n_examples; i += EXAMPLE_BLOCK) {
        const ptrdiff_t count = n_examples - i < EXAMPLE_BLOCK ? n_examples - i : EXAMPLE_BLOCK;
        const real beta = i == 0 ? (real)beta_ : 1;
        const real *deltas = (const real *)delta_ + p_begin * PANEL * capacity + i * width;
        for (ptrdiff_t k = k_begin; k < k_end; k += PANEL) {
            const ptrdiff_t A_width = NAME(panel_width)(k / PANEL, n_prev);
            const real *a = (const real *)A_prev_ + k * capacity + i * A_width;
            const ptrdiff_t rows = k_end - k < PANEL ? k_end - k : PANEL;
            real *dW = (real *)dW_ + (k - k_begin) * width;
            const real *delta = deltas;
            for (ptrdiff_t p = p_begin; p < p_end; p++, dW += panel_step, delta += PANEL * capacity)
                if (width == PANEL && A_width == PANEL)
                    NAME(gradient_rows)(dW, a, delta, scale, beta, count, rows, PANEL, PANEL);
                else if (width == PANEL)
                    NAME(gradient_rows)(dW, a, delta, scale, beta, count, rows, PANEL, HALF);
                else if (A_width == PANEL)
                    NAME(gradient_rows)(dW, a, delta, scale, beta, count, rows, HALF, PANEL);
                else
                    NAME(gradient_rows)(dW, a, delta, scale, beta, count, rows, HALF, HALF);
        }
    }
}
