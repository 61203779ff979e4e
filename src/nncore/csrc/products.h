/* forward (1), delta (4) and gradient (5), each by the product that suits the layers' sizes. */

#pragma once

#include "activations.h"
#include "panels.h"
#include "tile_products.h"
#include "unit_products.h"
#include "vector.h"

/* Panel p of C. */
static void panel_product(const struct product product, ptrdiff_t p) {
    if (product.n == 1)
        dot_products(product);
    else if (product.n_inner == 1)
        outer_product(product, p);
    else
        tiled_product(product, p);
}

static void forward(void *A_, void *derivatives_, const void *A_prev, ptrdiff_t A_stride,
                    const void *W, const void *b, nncore_sigma sigma, ptrdiff_t row,
                    ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *A = A_, *derivatives = derivatives_;
    const int is_relu = sigma.kind == NNCORE_RELU;
    const struct product product = {.C = A,
                                    .A = A_prev,
                                    .A_stride = A_stride,
                                    .B = W,
                                    .bias = b,
                                    .row = row,
                                    .n_rows = n_rows,
                                    .capacity = capacity,
                                    .n_inner = n_prev,
                                    .n = n,
                                    .least = is_relu ? 0 : -(real)INFINITY};
    for (ptrdiff_t p = 0; p * PANEL_WIDTH < n; p++) {
        const ptrdiff_t width = width_of_panel(p, n);
        const ptrdiff_t at = p * PANEL_WIDTH * capacity + row * width;
        panel_product(product, p);
        if (sigma.kind == NNCORE_SOFTMAX)
            softmax(A + at, n_rows, n, width);
        else if (!is_relu)
            bias_activation(A + at, derivatives ? derivatives + at : NULL, NULL, sigma, n_rows,
                            width);
    }
}

static void delta(void *delta_prev_, const void *delta, const void *W_transposed,
                  const void *A_prev_, nncore_sigma sigma, ptrdiff_t row, ptrdiff_t n_rows,
                  ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n) {
    real *delta_prev = delta_prev_;
    const real *A_prev = A_prev_;
    /* A layer of one unit has another product. */
    const int is_fused = n_prev > 1 && fuses_derivative(sigma);
    const struct product product = {.C = delta_prev,
                                    .A = delta,
                                    .B = W_transposed,
                                    .row = row,
                                    .n_rows = n_rows,
                                    .capacity = capacity,
                                    .n_inner = n,
                                    .n = n_prev,
                                    .least = -(real)INFINITY,
                                    .A_prev = is_fused ? A_prev : NULL,
                                    .activation = sigma.kind};
    for (ptrdiff_t p = 0; p * PANEL_WIDTH < n_prev; p++) {
        const ptrdiff_t width = width_of_panel(p, n_prev);
        const ptrdiff_t at = p * PANEL_WIDTH * capacity + row * width;
        panel_product(product, p);
        if (!is_fused)
            times_derivative(delta_prev + at, A_prev + at, sigma, n_rows * width);
    }
}

static void gradient(void *dW_, const void *delta_, const void *A_prev_, double scale_,
                     double beta_, ptrdiff_t panel_step, ptrdiff_t p_begin, ptrdiff_t p_end,
                     ptrdiff_t k_begin, ptrdiff_t k_end, ptrdiff_t n_examples, ptrdiff_t capacity,
                     ptrdiff_t n_prev, ptrdiff_t n) {
    const ptrdiff_t width = width_of_panel(p_begin, n), columns = n - p_begin * PANEL_WIDTH;
    const real scale = (real)scale_;
    for (ptrdiff_t i = 0; i < n_examples; i += EXAMPLE_BLOCK) {
        const ptrdiff_t count = n_examples - i < EXAMPLE_BLOCK ? n_examples - i : EXAMPLE_BLOCK;
        const real beta = i == 0 ? (real)beta_ : 1;
        const real *deltas = (const real *)delta_ + p_begin * PANEL_WIDTH * capacity + i * width;
        for (ptrdiff_t k = k_begin; k < k_end; k += PANEL_WIDTH) {
            const ptrdiff_t A_width = width_of_panel(k / PANEL_WIDTH, n_prev);
            const real *a = (const real *)A_prev_ + k * capacity + i * A_width;
            const ptrdiff_t rows = k_end - k < PANEL_WIDTH ? k_end - k : PANEL_WIDTH;
            real *dW = (real *)dW_ + (k - k_begin) * width;
            const real *delta = deltas;
            for (ptrdiff_t p = p_begin; p < p_end;
                 p++, dW += panel_step, delta += PANEL_WIDTH * capacity)
                if (width == 1)
                    unit_gradient(dW, a, A_width, delta, scale, beta, count, rows);
                else if (A_width == 1)
                    unit_gradient(dW, delta, width, a, scale, beta, count, width);
                else if (width == PANEL_WIDTH && A_width == PANEL_WIDTH)
                    gradient_rows(dW, a, delta, scale, beta, count, rows, PANEL_WIDTH, columns,
                                  PANEL_WIDTH);
                else if (width == PANEL_WIDTH)
                    gradient_rows(dW, a, delta, scale, beta, count, rows, PANEL_WIDTH, columns,
                                  HALF_WIDTH);
                else if (A_width == PANEL_WIDTH)
                    gradient_rows(dW, a, delta, scale, beta, count, rows, HALF_WIDTH, columns,
                                  PANEL_WIDTH);
                else
                    gradient_rows(dW, a, delta, scale, beta, count, rows, HALF_WIDTH, columns,
                                  HALF_WIDTH);
        }
    }
}
