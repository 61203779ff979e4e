/* Into panels and out of them (tile.h says how matrices lie there). A template, see vector.h.
 *
 * `panel` is the width of all panels but the last: PANEL, or the matrix's own width, with which a
 * panel is a plain array in C order. */

INLINE ptrdiff_t NAME(width_of)(ptrdiff_t panel, ptrdiff_t column, ptrdiff_t n) {
    return panel == PANEL ? NAME(panel_width)(column / PANEL, n) : panel;
}

/* out[j] <- the element of the given type `step` bytes after the one before. */
#define DEFINE_CONVERT(source)                                                                    \
    INLINE void NAME(convert_##source)(real * out, const char *in, ptrdiff_t step, ptrdiff_t n) { \
        if (step == sizeof(source))                                                               \
            for (ptrdiff_t j = 0; j < n; j++) {                                                   \
                source x;                                                                         \
                memcpy(&x, in + j * (ptrdiff_t)sizeof x, sizeof x);                               \
                out[j] = (real)x;                                                                 \
            }                                                                                     \
        else                                                                                      \
            for (ptrdiff_t j = 0; j < n; j++) {                                                   \
                source x;                                                                         \
                memcpy(&x, in + j * step, sizeof x);                                              \
                out[j] = (real)x;                                                                 \
            }                                                                                     \
    }
DEFINE_CONVERT(float)
DEFINE_CONVERT(double)
DEFINE_CONVERT(uint8_t)
#undef DEFINE_CONVERT

/* How many rows before its turn a row is asked for. */
#define AHEAD 4

/* Rows of X, those that `order` names from `first` on or, where it is NULL, as they lie, become
 * rows `row` to `row + n_rows` of A. */
static void NAME(gather)(void *A_, const void *X, enum nncore_source source, ptrdiff_t row_stride,
                         ptrdiff_t column_stride, const ptrdiff_t *order, ptrdiff_t n_order,
                         ptrdiff_t first, ptrdiff_t panel, ptrdiff_t row, ptrdiff_t n_rows,
                         ptrdiff_t capacity, ptrdiff_t n) {
    real *A = A_;
    const int plain = source == (NNCORE_DOUBLE ? NNCORE_FLOAT64 : NNCORE_FLOAT32) &&
                      column_stride == (ptrdiff_t)sizeof(real);
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        const char *in = (const char *)X + (order ? order[first + i] : first + i) * row_stride;
        /* No hardware foresees a shuffled order. */
        const ptrdiff_t ahead = first + i + AHEAD < n_order ? first + i + AHEAD : n_order - 1;
        const char *soon = order ? (const char *)X + order[ahead] * row_stride : in;
        for (ptrdiff_t column = 0; column < n; column += panel) {
            const ptrdiff_t width = NAME(width_of)(panel, column, n);
            const ptrdiff_t count = n - column < width ? n - column : width;
            const char *from = in + column * column_stride;
            if (order)
                __builtin_prefetch(soon + column * column_stride);
            real *out = A + column * capacity + (row + i) * width;
            if (plain)
                FOR_EACH_VECTOR (j, left, count)
                    STORE(out + j, LOAD((const real *)from + j, left), left);
            else if (source == NNCORE_FLOAT32)
                NAME(convert_float)(out, from, column_stride, count);
            else if (source == NNCORE_FLOAT64)
                NAME(convert_double)(out, from, column_stride, count);
            else
                NAME(convert_uint8_t)(out, from, column_stride, count);
        }
    }
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
                STORE(out + i * n + column + j, NAME(load)(from + j), left);
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
