/* The losses (2) and their deltas (3), and the targets and weights that they read. */

#pragma once

#include "activations.h"
#include "elementary.h"
#include "reductions.h"
#include "vector.h"

static void one_hot(void *Y_, const ptrdiff_t *classes, const ptrdiff_t *order, ptrdiff_t first,
                    ptrdiff_t n_rows, ptrdiff_t n) {
    real *Y = Y_;
    memset(Y, 0, (size_t)(n_rows * n) * sizeof(real));
    for (ptrdiff_t i = 0; i < n_rows; i++, first++)
        Y[i * n + classes[order ? order[first] : first]] = 1;
}

static double gather_weights(void *out_, const void *weights_, const ptrdiff_t *order,
                             ptrdiff_t first, ptrdiff_t n_rows) {
    real *out = out_;
    const real *weights = weights_;
    double total = 0;
    for (ptrdiff_t i = 0; i < n_rows; i++, first++)
        total += (double)(out[i] = weights[order ? order[first] : first]);
    return total;
}

/* Clip probabilities to [epsilon, 1 - epsilon], so that no logarithm sees 0. */
INLINE V log_clipped(V p) {
    const V low = broadcast(EPSILON), high = broadcast(1 - EPSILON);
    return vector_log(SELECT(p < low, low, SELECT(p > high, high, p)));
}

/* Half the Poisson deviance, y ln(y / a) - y + a. Its first term is 0 for y = 0; an a that rounded
 * to 0 counts as the smallest normal number. */
INLINE V poisson(V a, V y) {
    const V low = broadcast(SMALLEST_NORMAL), one = broadcast(1);
    const V ratio = vector_log(SELECT(y > 0, y, one)) - vector_log(SELECT(a < low, low, a));
    return SELECT(y > 0, y * ratio, broadcast(0)) - y + a;
}

static double loss(const void *A_, const void *Y_, const void *sample_weight_,
                   enum nncore_loss loss, double threshold_, ptrdiff_t n_rows, ptrdiff_t n) {
    const V threshold = broadcast((real)threshold_);
    const real *A = A_, *Y = Y_, *sample_weight = sample_weight_;
    double total = 0;
    ptrdiff_t left = n_rows * n;
    if (!sample_weight) /* the rows' bounds do not matter */
        n = SUM_BLOCK;
    for (; left > 0; left -= n, A += n, Y += n) {
        const double weight = sample_weight ? (double)*sample_weight++ : 1.0;
        if (weight == 0) /* even if the loss is not finite */
            continue;
        V row = {0};
        FOR_EACH_VECTOR (j, count, left < n ? left : n) {
            const V a = LOAD(A + j, count), y = LOAD(Y + j, count);
            switch (loss) {
            case NNCORE_SQUARED_ERROR:
                row = multiply_add(R(0.5) * (a - y), a - y, row);
                break;
            case NNCORE_BINARY_CROSS_ENTROPY: {
                const V term = y * log_clipped(a) + (1 - y) * log_clipped(1 - a);
                row -= count >= LANES ? term : (V)((VB)term & first_lanes(count));
                break;
            }
            case NNCORE_CROSS_ENTROPY: /* beyond the row's end y is 0, and so is the term */
                row = multiply_add(-y, log_clipped(a), row);
                break;
            case NNCORE_POISSON:
                row += poisson(a, y);
                break;
            case NNCORE_ABSOLUTE_ERROR:
                row += absolute(a - y);
                break;
            case NNCORE_HUBER: {
                const V r = absolute(a - y);
                row += SELECT(r <= threshold, R(0.5) * r * r, threshold * (r - R(0.5) * threshold));
                break;
            }
            case NNCORE_CUSTOM:
                row = multiply_add(y, a, row);
                break;
            }
        }
        total += (double)lane_sum(row) * weight;
    }
    return total;
}

static void output_delta(void *delta_, const void *A, const void *derivatives, const void *Y_,
                         const void *sample_weight_, enum nncore_loss loss, double threshold_,
                         nncore_sigma sigma, ptrdiff_t n_rows, ptrdiff_t n) {
    const V threshold = broadcast((real)threshold_);
    real *delta = delta_;
    const real *a = A, *y = Y_, *sample_weight = sample_weight_;
    /* Its derivative couples the outputs of a row. */
    const int is_softmax = loss == NNCORE_CUSTOM && sigma.kind == NNCORE_SOFTMAX;
    if (!sample_weight && !is_softmax) /* one long row */
        n *= n_rows, n_rows = 1;
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        const V weight = broadcast(sample_weight ? sample_weight[i] : 1);
        FOR_EACH_VECTOR (j, count, n) {
            const ptrdiff_t at = i * n + j;
            V r = LOAD(a + at, count) - LOAD(y + at, count);
            if (loss == NNCORE_ABSOLUTE_ERROR)
                r = SELECT(r > 0, broadcast(1), SELECT(r < 0, broadcast(-1), r));
            else if (loss == NNCORE_HUBER)
                r = SELECT(r > threshold, threshold, SELECT(r < -threshold, -threshold, r));
            else if (loss == NNCORE_CUSTOM)
                r = LOAD(y + at, count);
            STORE(delta + at, weight * r, count);
        }
    }
    /* The other losses' derivatives cancel sigma'. */
    if (is_softmax)
        times_softmax_jacobian(delta, a, n_rows, n);
    else if (loss == NNCORE_SQUARED_ERROR || loss == NNCORE_ABSOLUTE_ERROR ||
             loss == NNCORE_HUBER || loss == NNCORE_CUSTOM)
        times_derivative(delta, derivatives, sigma, n_rows * n);
    for (ptrdiff_t i = 0; sample_weight && i < n_rows; i++)
        if (sample_weight[i] == 0) /* even if a or y is not finite */
            memset(delta + i * n, 0, (size_t)n * sizeof(real));
}
