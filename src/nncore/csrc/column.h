/* The products (1), (4) and (5) where a layer has a single unit, as that of a regression or of two
 * classes: its panel is a vector, and a tile would leave all lanes but one idle. So the lanes are
 * filled along the other layer's units. A template, see vector.h. */

/* acc[r] += a[r][0 to count] x[0 to count], lane by lane. */
INLINE void NAME(add_products)(V *acc, const real *a, ptrdiff_t step, const real *x,
                               ptrdiff_t count, const ptrdiff_t rows) {
    FOR_EACH_VECTOR (j, left, count) {
        const V b = LOAD(x + j, left);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) acc[r] =
            NAME(fma)(LOAD(a + r * step + j, left), b, acc[r]);
    }
}

/* acc[r] = A[row + r] . B: what is left to do is to add up each one's lanes. */
INLINE void NAME(dots)(V *acc, const NAME(product_t) product, ptrdiff_t row, const ptrdiff_t rows) {
    const ptrdiff_t A_stride = product.A_stride, n = product.n_inner;
    const real *A = product.A, *x = product.B;
    UNROLL for (ptrdiff_t r = 0; r < rows; r++) acc[r] = (V){0};
    if (A_stride) {
        NAME(add_products)(acc, A + row * A_stride, A_stride, x, n, rows);
        return;
    }
    ptrdiff_t k = 0;
    for (; k + PANEL <= n; k += PANEL, A += PANEL * product.capacity)
        NAME(add_products)(acc, A + row * PANEL, PANEL, x + k, PANEL, rows);
    const ptrdiff_t width = NAME(panel_width)(k / PANEL, n);
    NAME(add_products)(acc, A + row * width, width, x + k, n - k, rows);
}

/* The only column of C. A row's sum does not depend on the rows beside it. */
static void NAME(dot_products)(const NAME(product_t) product) {
    const real start = product.bias ? *product.bias : 0;
    for (ptrdiff_t i = 0; i < product.n_rows; i += LANES) {
        const ptrdiff_t row = product.row + i, left = product.n_rows - i;
        V acc[LANES] = {{0}};
        if (left >= LANES)
            NAME(dots)(acc, product, row, LANES);
        else
            for (ptrdiff_t r = 0; r < left; r++)
                NAME(dots)(acc + r, product, row + r, 1);
        NAME(transpose_square)(acc);
        V total = acc[0];
        UNROLL for (ptrdiff_t r = 1; r < LANES; r++) total += acc[r];
        total += start;
        if (product.gate)
            total = SELECT(LOAD(product.gate + row, left) > 0, total, (V){0});
        else
            total = NAME(at_least)(total, NAME(all)(product.least));
        STORE(product.C + row, total, left);
    }
}

/* Panel p of C where A has a single column and B a single row. */
static void NAME(outer_product)(const NAME(product_t) product, ptrdiff_t p) {
    const ptrdiff_t width = NAME(panel_width)(p, product.n);
    const ptrdiff_t step = product.A_stride ? product.A_stride : 1;
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        const V b = NAME(load)(product.B + p * PANEL + j);
        const V start = product.bias ? NAME(load)(product.bias + p * PANEL + j) : (V){0};
        real *C = product.C + p * PANEL * product.capacity + product.row * width + j;
        const real *a = product.A + product.row * step;
        for (ptrdiff_t r = 0; r < product.n_rows; r++, C += width, a += step) {
            V sum = NAME(fma)(NAME(all)(*a), b, start);
            NAME(finish)(&sum, product, C, 1);
            NAME(store)(C, sum);
        }
    }
}

/* dW <- beta dW + scale sum over examples of x[example] P[example], for `count` columns of a panel
 * P of a certain width. */
static void NAME(column_gradient)(real *dW, const real *P, ptrdiff_t width, const real *x,
                                  real scale, real beta, ptrdiff_t n_examples, ptrdiff_t count) {
    if (width == 1) {
        V sum = {0};
        NAME(add_products)(&sum, P, 0, x, n_examples, 1);
        *dW = (beta == 0 ? 0 : beta * *dW) + scale * NAME(sum)(sum);
        return;
    }
    FOR_EACH_VECTOR (j, left, count) {
        V sums[4] = {{0}}; /* none waits for its own last addition */
        ptrdiff_t i = 0;
        for (; i + 4 <= n_examples; i += 4)
            UNROLL for (ptrdiff_t part = 0; part < 4; part++) sums[part] = NAME(fma)(
                NAME(all)(x[i + part]), NAME(load)(P + (i + part) * width + j), sums[part]);
        for (; i < n_examples; i++)
            sums[0] = NAME(fma)(NAME(all)(x[i]), NAME(load)(P + i * width + j), sums[0]);
        V sum = scale * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
        if (beta != 0)
            sum = NAME(fma)(NAME(all)(beta), LOAD(dW + j, left), sum);
        STORE(dW + j, sum, left);
    }
}
