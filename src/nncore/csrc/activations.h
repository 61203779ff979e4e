/* The activations: sigma, and (7), its derivative in terms of its value a = sigma(z). Where it does
 * not follow from a, it is computed from z together with sigma. */

#pragma once

#include "elementary.h"
#include "softmax.h"
#include "vector.h"

#define ZERO broadcast(0)
#define ONE broadcast(1)

#define SIGMOID_DERIVATIVE(a) ((a) * (1 - (a)))
#define TANH_DERIVATIVE(a) (1 - (a) * (a))

/* Each sigma of z with its sigma' in terms of a; `slope` is a vector. Softplus has
 * 1 - e^-softplus(z). */
#define FOR_EACH_ACTIVATION(X)                                                            \
    X(IDENTITY, z, ONE)                                                                   \
    X(SIGMOID, vector_sigmoid(z), SIGMOID_DERIVATIVE(a))                                  \
    X(TANH, vector_tanh(z), TANH_DERIVATIVE(a))                                           \
    X(RELU, SELECT(z < 0, ZERO, z), SELECT(a > 0, ONE, ZERO))                             \
    X(LEAKY_RELU, SELECT(z < 0, slope * z, z), SELECT(a > 0, ONE, slope))                 \
    X(ELU, SELECT(z < 0, slope * expm1_nonpositive(z), z), SELECT(a > 0, ONE, a + slope)) \
    X(SOFTPLUS, vector_softplus(z), -expm1_nonpositive(-a))                               \
    X(EXPONENTIAL, vector_exp(z), a)

/* With a negative slope, a > 0 does not tell the sides apart. */
INLINE V falling_leaky_relu(V z, V slope, V *derivative) {
    *derivative = SELECT(z > 0, ONE, slope);
    return SELECT(z < 0, slope * z, z);
}

INLINE V falling_elu(V z, V slope, V *derivative) {
    const V a = slope * expm1_nonpositive(z);
    *derivative = SELECT(z > 0, ONE, a + slope);
    return SELECT(z < 0, a, z);
}

/* Each sigma whose derivatives are kept. */
#define FOR_EACH_KEPT_ACTIVATION(X)                          \
    X(LEAKY_RELU, falling_leaky_relu(z, slope, &derivative)) \
    X(ELU, falling_elu(z, slope, &derivative))               \
    X(SILU, vector_silu(z, &derivative))                     \
    X(GELU, vector_gelu(z, &derivative))                     \
    X(GELU_TANH, vector_gelu_tanh(z, &derivative))

/* bias_activation where derivatives are kept. */
static void kept_activation(real *A, real *derivatives, const real *b, nncore_sigma sigma,
                            ptrdiff_t n_rows, ptrdiff_t n) {
    const V slope = broadcast((real)sigma.slope);
    switch (sigma.kind) {
#define X(ACTIVATION, activated)                                   \
    case NNCORE_##ACTIVATION:                                      \
        for (ptrdiff_t i = 0; i < n_rows * n; i += n)              \
            FOR_EACH_VECTOR (j, count, n) {                        \
                V derivative, z = LOAD(A + i + j, count);          \
                if (b)                                             \
                    z += LOAD(b + j, count);                       \
                STORE(A + i + j, activated, count);                \
                if (derivatives)                                   \
                    STORE(derivatives + i + j, derivative, count); \
            }                                                      \
        break;
        FOR_EACH_KEPT_ACTIVATION(X)
#undef X
    default:
        break;
    }
}

static void bias_activation(void *A_, void *derivatives, const void *b_, nncore_sigma sigma,
                            ptrdiff_t n_rows, ptrdiff_t n) {
    const V slope = broadcast((real)sigma.slope);
    real *A = A_;
    const real *b = b_;
    if (sigma.kind == NNCORE_SOFTMAX) {
        if (b)
            bias_activation(A, NULL, b, (nncore_sigma){NNCORE_IDENTITY, 0}, n_rows, n);
        softmax(A, n_rows, n, n);
        return;
    }
    if (!b) { /* one long row */
        if (sigma.kind == NNCORE_IDENTITY)
            return;
        n *= n_rows, n_rows = 1;
    }
    if (nncore_keeps_derivatives(sigma)) {
        kept_activation(A, derivatives, b, sigma, n_rows, n);
        return;
    }
    switch (sigma.kind) {
#define X(ACTIVATION, activated, derivative)                             \
    case NNCORE_##ACTIVATION:                                            \
        for (ptrdiff_t i = 0; i < n_rows; i++, A += n)                   \
            if (b)                                                       \
                FOR_EACH_VECTOR (j, count, n) {                          \
                    const V z = LOAD(A + j, count) + LOAD(b + j, count); \
                    STORE(A + j, activated, count);                      \
                }                                                        \
            else                                                         \
                FOR_EACH_VECTOR (j, count, n) {                          \
                    const V z = LOAD(A + j, count);                      \
                    STORE(A + j, activated, count);                      \
                }                                                        \
        break;
        FOR_EACH_ACTIVATION(X)
#undef X
    default:
        break;
    }
}

static void times_derivative(void *delta_, const void *A_, nncore_sigma sigma, ptrdiff_t count) {
    const V slope = broadcast((real)sigma.slope);
    real *delta = delta_;
    const real *A = A_;
    if (nncore_keeps_derivatives(sigma)) { /* A is sigma'(Z) */
        FOR_EACH_VECTOR (i, left, count)
            STORE(delta + i, LOAD(delta + i, left) * LOAD(A + i, left), left);
        return;
    }
    if (sigma.kind == NNCORE_IDENTITY)
        return;
    switch (sigma.kind) {
#define X(ACTIVATION, activated, derivative)                              \
    case NNCORE_##ACTIVATION:                                             \
        FOR_EACH_VECTOR (i, left, count) {                                \
            const V a = LOAD(A + i, left);                                \
            (void)a; /* identity */                                       \
            STORE(delta + i, LOAD(delta + i, left) * (derivative), left); \
        }                                                                 \
        break;
        FOR_EACH_ACTIVATION(X)
#undef X
    default: /* softmax, an output's only, see output_delta */
        break;
    }
}
