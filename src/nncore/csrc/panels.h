/* Matrices in panels: into them and out of them. A template, see vector.h.
 *
 * A panel is PANEL = 2 LANES columns wide; the last one of a matrix is HALF as wide where that is
 * enough, and that of a matrix of one column is a plain vector. The padding is never summed into
 * what counts. With w the panel's width,
 *
 *     A^l and delta^l lie as [panel][example][w], with room for `capacity` examples,
 *     W^l             lies as [panel of n_l][input][w],
 *     W^l transposed  lies as [panel of n_(l-1)][unit of n_l][w]. */

#define PANEL (2 * LANES)
#define HALF LANES
#define LINE ((ptrdiff_t)64)
#define UNROLL _Pragma("GCC unroll 24")

INLINE ptrdiff_t NAME(panel_width)(ptrdiff_t p, ptrdiff_t n) {
    return n == 1 ? 1 : n - p * PANEL <= HALF ? HALF : PANEL;
}

/* `panel` is the width of all panels but the last: PANEL, or the matrix's own width, with which a
 * panel is a plain array in C order. */
INLINE ptrdiff_t NAME(width_of)(ptrdiff_t panel, ptrdiff_t column, ptrdiff_t n) {
    return panel == PANEL ? NAME(panel_width)(column / PANEL, n) : panel;
}

/* out[j] <- the element `step` bytes after the one before. What is not count is a constant where
 * this is inlined, and often count too. */
INLINE void NAME(take)(real *out, const char *in, ptrdiff_t step, ptrdiff_t count,
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

/* Rows are taken in groups, since a panel's rows lie side by side but its panels far apart; and
 * those of the next group are asked for: no hardware foresees a shuffled order. */
#define GROUP ((ptrdiff_t)8)

INLINE void NAME(gather_from)(real *A, const char *X, const enum nncore_source source,
                              ptrdiff_t row_stride, ptrdiff_t column_stride, const ptrdiff_t *order,
                              ptrdiff_t n_order, ptrdiff_t first, ptrdiff_t panel, ptrdiff_t row,
                              ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n) {
    const ptrdiff_t n_whole = panel == PANEL ? n - n % PANEL : 0;
    const int is_plain = column_stride <= (ptrdiff_t)sizeof(double);
    if (n == 1) {
        for (real *a = (real *)A + row; n_rows > 0; n_rows--, a++, first++)
            NAME(take)(a, X + (order ? order[first] : first) * row_stride, 0, 1, source);
        return;
    }
    for (ptrdiff_t end = row + n_rows; row < end; row += GROUP, first += GROUP) {
        const ptrdiff_t count = end - row < GROUP ? end - row : GROUP;
        const char *in[GROUP], *soon[GROUP];
        for (ptrdiff_t i = 0; i < count; i++) {
            const ptrdiff_t next = first + i + GROUP;
            in[i] = X + (order ? order[first + i] : first + i) * row_stride;
            soon[i] = order && next < n_order ? X + order[next] * row_stride : in[i];
        }
        for (ptrdiff_t column = 0; column < n_whole; column += PANEL)
            for (ptrdiff_t i = 0; i < count; i++) {
                for (ptrdiff_t byte = 0; is_plain && byte < PANEL * column_stride; byte += LINE)
                    __builtin_prefetch(soon[i] + column * column_stride + byte);
                NAME(take)(A + column * capacity + (row + i) * PANEL,
                           in[i] + column * column_stride, column_stride, PANEL, source);
            }
        const ptrdiff_t width = NAME(width_of)(panel, n_whole, n);
        for (ptrdiff_t i = 0; i < count && n_whole < n; i++) {
            __builtin_prefetch(soon[i] + (n - 1) * column_stride);
            NAME(take)(A + n_whole * capacity + (row + i) * width, in[i] + n_whole * column_stride,
                       column_stride, n - n_whole, source);
        }
    }
}

/* Rows of X, those that `order` names from `first` on or, where it is NULL, as they lie, become
 * rows `row` to `row + n_rows` of A. */
static void NAME(gather)(void *A, const void *X, enum nncore_source source, ptrdiff_t row_stride,
                         ptrdiff_t column_stride, const ptrdiff_t *order, ptrdiff_t n_order,
                         ptrdiff_t first, ptrdiff_t panel, ptrdiff_t row, ptrdiff_t n_rows,
                         ptrdiff_t capacity, ptrdiff_t n) {
#define FROM(source, column_stride)                                                               \
    NAME(gather_from)(A, X, source, row_stride, column_stride, order, n_order, first, panel, row, \
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

/* Rows `row` to `row + n_rows` of A become the first n_rows of a plain array. */
static void NAME(scatter)(void *out_, const void *A_, ptrdiff_t row, ptrdiff_t n_rows,
                          ptrdiff_t capacity, ptrdiff_t n) {
    real *out = out_;
    const real *A = A_;
    for (ptrdiff_t i = 0; i < n_rows; i++)
        for (ptrdiff_t column = 0; column < n; column += PANEL) {
            const ptrdiff_t width = NAME(panel_width)(column / PANEL, n);
            const ptrdiff_t count = n - column < width ? n - column : width;
            const real *from = A + column * capacity + (row + i) * width;
            FOR_EACH_VECTOR (j, left, count)
                STORE(out + i * n + column + j, LOAD(from + j, left), left);
        }
}

/* Rounds of a perfect shuffle: each turns the bits of (row, column) one place further, and after
 * as many as a row's index has bits the two have changed places. */
#if VECTOR_BYTES / (4 + 4 * NNCORE_DOUBLE) == 2
#define LOW_HALVES 0, 2
#define HIGH_HALVES 1, 3
#elif VECTOR_BYTES / (4 + 4 * NNCORE_DOUBLE) == 4
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#elif VECTOR_BYTES / (4 + 4 * NNCORE_DOUBLE) == 8
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

INLINE void NAME(transpose_square)(V *rows) {
    for (ptrdiff_t round = 1; round < LANES; round *= 2) {
        V next[LANES];
        UNROLL for (ptrdiff_t i = 0; i < LANES / 2; i++) {
            next[2 * i] = SHUFFLE(rows[i], rows[i + LANES / 2], LOW_HALVES);
            next[2 * i + 1] = SHUFFLE(rows[i], rows[i + LANES / 2], HIGH_HALVES);
        }
        UNROLL for (ptrdiff_t i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

/* The block of W in panel p of n_l and inputs k_begin (a multiple of PANEL) to k_end, into W's
 * transpose. */
static void NAME(transpose)(void *W_transposed_, const void *W_, ptrdiff_t p, ptrdiff_t k_begin,
                            ptrdiff_t k_end, ptrdiff_t n_prev, ptrdiff_t n) {
    const ptrdiff_t width = NAME(panel_width)(p, n);
    const real *W = (const real *)W_ + p * PANEL * n_prev;
    if (n == 1 || n_prev == 1) { /* two vectors in the same order */
        const ptrdiff_t begin = n == 1 ? k_begin : p * PANEL;
        const ptrdiff_t end = n == 1 ? k_end : n < begin + PANEL ? n : begin + PANEL;
        memcpy((real *)W_transposed_ + begin, (const real *)W_ + begin,
               (size_t)(end - begin) * sizeof(real));
        return;
    }
    for (ptrdiff_t k = k_begin; k < k_end; k += LANES) {
        const ptrdiff_t panel = k - k % PANEL;
        const ptrdiff_t T_width = NAME(panel_width)(panel / PANEL, n_prev);
        real *T = (real *)W_transposed_ + panel * n + k % PANEL;
        for (ptrdiff_t column = 0; column < width; column += LANES) {
            V rows[LANES];
            UNROLL for (ptrdiff_t i = 0; i < LANES; i++) rows[i] =
                k + i < n_prev ? NAME(load)(W + (k + i) * width + column) : (V){0};
            NAME(transpose_square)(rows);
            for (ptrdiff_t i = 0; i < LANES && p * PANEL + column + i < n; i++)
                NAME(store)(T + (p * PANEL + column + i) * T_width, rows[i]);
        }
    }
}
