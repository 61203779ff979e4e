/* The products (1), (4) and (5), each in the form that suits the layers' shapes. A template, see
 * vector.h. */

/* Panel p of C. */
static void NAME(product)(const NAME(product_t) product, ptrdiff_t p) {
    if (product.n == 1)
        NAME(dot_products)(product);
    else if (product.n_inner == 1)
        NAME(outer_product)(product, p);
    else
        NAME(tiled_product)(product, p);
}

static void NAME(forward)(void *A_, const void *A_prev, ptrdiff_t A_stride, const void *W,
                          const void *b, enum nncore_activation activation, ptrdiff_t row,
                          ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *A = A_;
    const int is_relu = activation == NNCORE_RELU;
    const NAME(product_t) product = {
        .C = A,
        .A = A_prev,
        .A_stride = A_stride,
        .B = W,
        .bias = b,
        .row = row,
        .n_rows = n_rows,
        .capacity = capacity,
        .n_inner = n_prev,
        .n = n,
        .least = is_relu ? 0 : -(real)INFINITY,
    };
    for (ptrdiff_t p = 0; p * PANEL < n; p++) {
        const ptrdiff_t width = NAME(panel_width)(p, n);
        NAME(product)(product, p);
        if (!is_relu)
            NAME(bias_activation)(A + p * PANEL * capacity + row * width, NULL, activation, n_rows,
                                  width);
    }
}

static void NAME(delta)(void *delta_prev_, const void *delta, const void *W_transposed,
                        const void *A_prev_, enum nncore_activation activation, ptrdiff_t row,
                        ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *delta_prev = delta_prev_;
    const real *A_prev = A_prev_;
    const int is_relu = activation == NNCORE_RELU;
    const NAME(product_t) product = {
        .C = delta_prev,
        .A = delta,
        .B = W_transposed,
        .row = row,
        .n_rows = n_rows,
        .capacity = capacity,
        .n_inner = n,
        .n = n_prev,
        .least = -(real)INFINITY,
        .gate = is_relu ? A_prev : NULL,
    };
    for (ptrdiff_t p = 0; p * PANEL < n_prev; p++) {
        const ptrdiff_t width = NAME(panel_width)(p, n_prev);
        const ptrdiff_t at = p * PANEL * capacity + row * width;
        NAME(product)(product, p);
        if (!is_relu)
            NAME(times_derivative)(delta_prev + at, A_prev + at, activation, n_rows * width);
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
                if (width == 1)
                    NAME(column_gradient)(dW, a, A_width, delta, scale, beta, count, rows);
                else if (A_width == 1)
                    NAME(column_gradient)(dW, delta, width, a, scale, beta, count, width);
                else if (width == PANEL && A_width == PANEL)
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
    if (n == 1) {
        const NAME(product_t) product = {
            .C = A,
            .A = A_prev,
            .A_stride = n_prev,
            .B = W,
            .bias = b,
            .n_rows = n_rows,
            .n_inner = n_prev,
            .n = n,
            .least = -(real)INFINITY,
        };
        NAME(dot_products)(product);
    }
    for (ptrdiff_t row = 0; row < n_rows && n > 1; row += PLAIN_ROWS)
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
