/* The losses (2) and their deltas (3), from targets or class indices, and sample weights. Rows are
 * `stride` elements apart. */

#pragma once

#include "activations.h"
#include "elementary.h"
#include "reductions.h"
#include "vector.h"

/* The rows of a panel whose losses are added lane by lane. */
#define SUM_ROWS ((ptrdiff_t)16)

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

/* sum + the losses of a vector of outputs; the lanes beyond `count` of a and y are 0. */
INLINE V add_losses(V sum, V a, V y, ptrdiff_t count, enum nncore_loss loss, V threshold) {
    switch (loss) {
    case NNCORE_SQUARED_ERROR:
        return multiply_add(R(0.5) * (a - y), a - y, sum);
    case NNCORE_BINARY_CROSS_ENTROPY: {
        const V term = y * log_clipped(a) + (1 - y) * log_clipped(1 - a);
        return sum - (count >= LANES ? term : (V)((VB)term & first_lanes(count)));
    }
    case NNCORE_CROSS_ENTROPY: /* where y is 0, so is the term */
        return multiply_add(-y, log_clipped(a), sum);
    case NNCORE_POISSON:
        return sum + poisson(a, y);
    case NNCORE_ABSOLUTE_ERROR:
        return sum + absolute(a - y);
    case NNCORE_HUBER: {
        const V r = absolute(a - y);
        return sum + SELECT(r <= threshold, R(0.5) * r * r, threshold * (r - R(0.5) * threshold));
    }
    case NNCORE_CUSTOM:
        return multiply_add(y, a, sum);
    }
    return sum;
}

static double loss(const void *A_, const void *Y_, const void *sample_weight_,
                   enum nncore_loss loss, double threshold_, ptrdiff_t n_rows, ptrdiff_t n,
                   ptrdiff_t stride) {
    const V threshold = broadcast((real)threshold_);
    const real *A = A_, *Y = Y_, *sample_weight = sample_weight_;
    double total = 0;
    ptrdiff_t left = n_rows * n, rows = sample_weight ? 1 : SUM_ROWS;
    if (!sample_weight && stride == n) /* the rows' bounds do not matter */
        n = stride = SUM_BLOCK, rows = 1;
    while (left > 0) {
        const double weight = sample_weight ? (double)*sample_weight++ : 1.0;
        V sum = {0};
        for (ptrdiff_t r = 0; r < rows && left > 0; r++, left -= n, A += stride, Y += stride)
            FOR_EACH_VECTOR (j, count, left < n ? left : n)
                sum =
                    add_losses(sum, LOAD(A + j, count), LOAD(Y + j, count), count, loss, threshold);
        if (weight != 0) /* otherwise even if the loss is not finite */
            total += (double)lane_sum(sum) * weight;
    }
    return total;
}

static void output_delta(void *delta_, const void *A, const void *derivatives, const void *Y_,
                         const void *sample_weight_, enum nncore_loss loss, double threshold_,
                         nncore_sigma sigma, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    const V threshold = broadcast((real)threshold_);
    real *delta = delta_;
    const real *a = A, *y = Y_, *sample_weight = sample_weight_;
    /* Its derivative couples the outputs of a row. */
    const int is_softmax = loss == NNCORE_CUSTOM && sigma.kind == NNCORE_SOFTMAX;
    if (!sample_weight && !is_softmax && stride == n) /* one long row */
        n = stride = n * n_rows, n_rows = 1;
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        const V weight = broadcast(sample_weight ? sample_weight[i] : 1);
        FOR_EACH_VECTOR (j, count, n) {
            const ptrdiff_t at = i * stride + j;
            V r = LOAD(a + at, count) - LOAD(y + at, count);
            if (loss == NNCORE_ABSOLUTE_ERROR)
                r = SELECT(r > 0, broadcast(1), SELECT(r < 0, broadcast(-1), r));
            else if (loss == NNCORE_HUBER)
                r = SELECT(r > threshold, threshold, SELECT(r < -threshold, -threshold, r));
            else if (loss == NNCORE_CUSTOM)
                r = LOAD(y + at, count);
            STORE(delta + at, weight * r, stride - j);
        }
    }
    /* The other losses' derivatives cancel sigma'. */
    if (is_softmax)
        times_softmax_jacobian(delta, a, n_rows, n, stride);
    else if (loss == NNCORE_SQUARED_ERROR || loss == NNCORE_ABSOLUTE_ERROR ||
             loss == NNCORE_HUBER || loss == NNCORE_CUSTOM)
        times_derivative(delta, derivatives, sigma, n_rows * stride);
    for (ptrdiff_t i = 0; sample_weight && i < n_rows; i++)
        if (sample_weight[i] == 0) /* even if a or y is not finite */
            memset(delta + i * stride, 0, (size_t)n * sizeof(real));
}

/* Cross entropy, whose targets are 1 in the column of an example's class and 0 elsewhere. */

static double class_loss(const void *A_, const ptrdiff_t *classes, const ptrdiff_t *order,
                         ptrdiff_t first, const void *sample_weight_, ptrdiff_t n_rows,
                         ptrdiff_t stride) {
    const real *A = A_, *sample_weight = sample_weight_;
    double total = 0;
    for (ptrdiff_t i = 0; i < n_rows; i += LANES) {
        const ptrdiff_t count = n_rows - i < LANES ? n_rows - i : LANES;
        V a = broadcast(1);
        for (ptrdiff_t r = 0; r < count; r++, first++)
            a[r] = A[(i + r) * stride + classes[order ? order[first] : first]];
        const V losses = -log_clipped(a);
        for (ptrdiff_t r = 0; r < count; r++)
            if (!sample_weight)
                total += (double)losses[r];
            else if (sample_weight[i + r] != 0) /* otherwise even if the loss is not finite */
                total += (double)sample_weight[i + r] * (double)losses[r];
    }
    return total;
}

static void class_delta(void *delta_, const void *A_, const ptrdiff_t *classes,
                        const ptrdiff_t *order, ptrdiff_t first, const void *sample_weight_,
                        ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    real *delta = delta_;
    const real *A = A_, *sample_weight = sample_weight_;
    for (ptrdiff_t i = 0; i < n_rows; i++, first++, delta += stride, A += stride) {
        const ptrdiff_t column = classes[order ? order[first] : first];
        const real weight = sample_weight ? sample_weight[i] : 1;
        if (weight == 0) { /* even if A is not finite */
            memset(delta, 0, (size_t)n * sizeof(real));
            continue;
        }
        FOR_EACH_VECTOR (j, count, n) {
            const VB is_class = (VB)(lane_numbers() == broadcast_bits((bits)(column - j)));
            const V r = LOAD(A + j, count) - (V)(is_class & (VB)broadcast(1));
            STORE(delta + j, weight * r, stride - j);
        }
    }
}
