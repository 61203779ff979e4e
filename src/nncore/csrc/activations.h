/* The activations: sigma, and (7), its derivative in terms of its value a = sigma(z). */

#pragma once

#include "elementary.h"
#include "softmax.h"
#include "vector.h"

INLINE V vector_identity(V z) { return z; }
INLINE V identity_derivative(V a) { return (void)a, broadcast(1); }

INLINE V sigmoid_derivative(V a) { return a * (1 - a); }
INLINE V tanh_derivative(V a) { return 1 - a * a; }

INLINE V vector_relu(V z) { return SELECT(z < 0, broadcast(0), z); }
INLINE V relu_derivative(V a) { return SELECT(a > 0, broadcast(1), broadcast(0)); }

INLINE V vector_leaky_relu(V z) { return SELECT(z < 0, R(0.01) * z, z); }
INLINE V leaky_relu_derivative(V a) { return SELECT(a > 0, broadcast(1), broadcast(R(0.01))); }

INLINE V vector_elu(V z) { return SELECT(z < 0, expm1_nonpositive(z), z); }
INLINE V elu_derivative(V a) { return SELECT(a > 0, broadcast(1), a + 1); }

/* sigma'(z) = 1 - e^-softplus(z). */
INLINE V softplus_derivative(V a) { return -expm1_nonpositive(-a); }

INLINE V exp_derivative(V a) { return a; }

static void bias_activation(void *A_, const void *b_, enum nncore_activation activation,
                            ptrdiff_t n_rows, ptrdiff_t n) {
    real *A = A_;
    const real *b = b_;
    if (activation == NNCORE_SOFTMAX) {
        if (b)
            bias_activation(A, b, NNCORE_IDENTITY, n_rows, n);
        softmax(A, n_rows, n);
        return;
    }
    if (!b) { /* one long row */
        if (activation == NNCORE_IDENTITY)
            return;
        n *= n_rows, n_rows = 1;
    }
    switch (activation) {
#define X(ACTIVATION, sigma)                                                                      \
    case NNCORE_##ACTIVATION:                                                                     \
        for (ptrdiff_t i = 0; i < n_rows; i++, A += n)                                            \
            if (b)                                                                                \
                FOR_EACH_VECTOR (j, count, n)                                                     \
                    STORE(A + j, vector_##sigma(LOAD(A + j, count) + LOAD(b + j, count)), count); \
            else                                                                                  \
                FOR_EACH_VECTOR (j, count, n)                                                     \
                    STORE(A + j, vector_##sigma(LOAD(A + j, count)), count);                      \
        break;
        NNCORE_ELEMENTWISE_ACTIVATIONS(X)
#undef X
    case NNCORE_SOFTMAX:
        break;
    }
}

static void times_derivative(void *delta_, const void *A_, enum nncore_activation activation,
                             ptrdiff_t count) {
    real *delta = delta_;
    const real *A = A_;
    if (activation == NNCORE_IDENTITY)
        return;
    switch (activation) {
#define X(ACTIVATION, sigma)                                                                       \
    case NNCORE_##ACTIVATION:                                                                      \
        FOR_EACH_VECTOR (i, left, count)                                                           \
            STORE(delta + i, LOAD(delta + i, left) * sigma##_derivative(LOAD(A + i, left)), left); \
        break;
        NNCORE_ELEMENTWISE_ACTIVATIONS(X)
#undef X
    case NNCORE_SOFTMAX: /* an output's only, see output_delta */
        break;
    }
}
