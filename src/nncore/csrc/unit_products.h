/* The products (1), (4) and (5) of a layer with a single unit, such as the output of a regression
 * or of two classes. Its panel is a vector, of which a tile would use one lane only; so the lanes
 * run along the other layer's units. */

#pragma once

#include "panels.h"
#include "tile_products.h"
#include "vector.h"

/* sums[r] += a[r][0 to count] x[0 to count], lane by lane. */
INLINE void add_products(V *sums, const real *a, ptrdiff_t step, const real *x, ptrdiff_t count,
                         const ptrdiff_t rows) {
    FOR_EACH_VECTOR (j, left, count) {
        const V b = LOAD(x + j, left);
        UNROLL for (ptrdiff_t r = 0; r < rows; r++) sums[r] =
            multiply_add(LOAD(a + r * step + j, left), b, sums[r]);
    }
}

/* sums[r] = A[row + r] . B, but for the addition of each vector's lanes. */
INLINE void dots(V *sums, const struct product product, ptrdiff_t row, const ptrdiff_t rows) {
    const ptrdiff_t A_stride = product.A_stride, n = product.n_inner;
    const real *A = product.A, *x = product.B;
    UNROLL for (ptrdiff_t r = 0; r < rows; r++) sums[r] = (V){0};
    if (A_stride) {
        add_products(sums, A + row * A_stride, A_stride, x, n, rows);
        return;
    }
    ptrdiff_t k = 0;
    for (; k + PANEL_WIDTH <= n; k += PANEL_WIDTH, A += PANEL_WIDTH * product.capacity)
        add_products(sums, A + row * PANEL_WIDTH, PANEL_WIDTH, x + k, PANEL_WIDTH, rows);
    const ptrdiff_t width = width_of_panel(k / PANEL_WIDTH, n);
    add_products(sums, A + row * width, width, x + k, n - k, rows);
}

/* The only column of C. A row's sum does not depend on the rows beside it. */
static void dot_products(const struct product product) {
    const real start = product.bias ? *product.bias : 0;
    for (ptrdiff_t i = 0; i < product.n_rows; i += LANES) {
        const ptrdiff_t row = product.row + i, left = product.n_rows - i;
        V sums[LANES] = {{0}};
        if (left >= LANES)
            dots(sums, product, row, LANES);
        else
            for (ptrdiff_t r = 0; r < left; r++)
                dots(sums + r, product, row + r, 1);
        transpose_square(sums);
        V total = sums[0];
        UNROLL for (ptrdiff_t r = 1; r < LANES; r++) total += sums[r];
        total += start;
        STORE(product.C + row, at_least(total, broadcast(product.least)), left);
    }
}

/* Panel p of C where A has a single column and B a single row. */
static void outer_product(const struct product product, ptrdiff_t p) {
    const ptrdiff_t width = width_of_panel(p, product.n);
    const ptrdiff_t step = product.A_stride ? product.A_stride : 1;
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        const V b = load(product.B + p * PANEL_WIDTH + j);
        const V start = product.bias ? load(product.bias + p * PANEL_WIDTH + j) : (V){0};
        real *C = product.C + p * PANEL_WIDTH * product.capacity + product.row * width + j;
        const real *a = product.A + product.row * step;
        for (ptrdiff_t r = 0; r < product.n_rows; r++, C += width, a += step) {
            V sum = multiply_add(broadcast(*a), b, start);
            finish(&sum, product, C, 1);
            store(C, sum);
        }
    }
}

/* dW <- beta dW + scale sum over examples of x[example] P[example], for `count` columns of a panel
 * P. */
static void unit_gradient(real *dW, const real *P, ptrdiff_t width, const real *x, real scale,
                          real beta, ptrdiff_t n_examples, ptrdiff_t count) {
    if (width == 1) {
        V sum = {0};
        add_products(&sum, P, 0, x, n_examples, 1);
        *dW = (beta == 0 ? 0 : beta * *dW) + scale * lane_sum(sum);
        return;
    }
    FOR_EACH_VECTOR (j, left, count) {
        V parts[PARTIAL_SUMS] = {{0}};
        ptrdiff_t i = 0;
        for (; i + PARTIAL_SUMS <= n_examples; i += PARTIAL_SUMS)
            UNROLL for (ptrdiff_t part = 0; part < PARTIAL_SUMS; part++) parts[part] =
                multiply_add(broadcast(x[i + part]), load(P + (i + part) * width + j), parts[part]);
        for (; i < n_examples; i++)
            parts[0] = multiply_add(broadcast(x[i]), load(P + i * width + j), parts[0]);
        V sum = scale * add_parts(parts);
        if (beta != 0)
            sum = multiply_add(broadcast(beta), LOAD(dW + j, left), sum);
        STORE(dW + j, sum, left);
    }
}
