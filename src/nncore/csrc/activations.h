/* The activations: sigma, and (7), its derivative in terms of its value a = sigma(z). Where it does
 * not follow from a, it is computed from z together with sigma. */

#pragma once

#include "elementary.h"
#include "softmax.h"
#include "vector.h"

#define ZERO broadcast(0)
#define ONE broadcast(1)

/* Each sigma of z with its sigma' in terms of a. Softplus has 1 - e^-softplus(z). */
#define FOR_EACH_ACTIVATION(X)                                                           \
    X(IDENTITY, z, ONE)                                                                  \
    X(SIGMOID, vector_sigmoid(z), a * (1 - a))                                           \
    X(TANH, vector_tanh(z), 1 - a * a)                                                   \
    X(RELU, SELECT(z < 0, ZERO, z), SELECT(a > 0, ONE, ZERO))                            \
    X(LEAKY_RELU, SELECT(z < 0, R(0.01) * z, z), SELECT(a > 0, ONE, broadcast(R(0.01)))) \
    X(ELU, SELECT(z < 0, expm1_nonpositive(z), z), SELECT(a > 0, ONE, a + 1))            \
    X(SOFTPLUS, vector_softplus(z), -expm1_nonpositive(-a))                              \
    X(EXPONENTIAL, vector_exp(z), a)

/* Those whose function writes sigma'(z), too. */
#define FOR_EACH_KEPT_ACTIVATION(X) \
    X(SILU, vector_silu)            \
    X(GELU, vector_gelu)            \
    X(GELU_TANH, vector_gelu_tanh)

static void bias_activation(void *A_, void *derivatives_, const void *b_,
                            enum nncore_activation activation, ptrdiff_t n_rows, ptrdiff_t n) {
    real *A = A_, *derivatives = derivatives_;
    const real *b = b_;
    if (activation == NNCORE_SOFTMAX) {
        if (b)
            bias_activation(A, NULL, b, NNCORE_IDENTITY, n_rows, n);
        softmax(A, n_rows, n);
        return;
    }
    if (!b) { /* one long row */
        if (activation == NNCORE_IDENTITY)
            return;
        n *= n_rows, n_rows = 1;
    }
    switch (activation) {
#define X(ACTIVATION, sigma, derivative)                                 \
    case NNCORE_##ACTIVATION:                                            \
        for (ptrdiff_t i = 0; i < n_rows; i++, A += n)                   \
            if (b)                                                       \
                FOR_EACH_VECTOR (j, count, n) {                          \
                    const V z = LOAD(A + j, count) + LOAD(b + j, count); \
                    STORE(A + j, sigma, count);                          \
                }                                                        \
            else                                                         \
                FOR_EACH_VECTOR (j, count, n) {                          \
                    const V z = LOAD(A + j, count);                      \
                    STORE(A + j, sigma, count);                          \
                }                                                        \
        break;
        FOR_EACH_ACTIVATION(X)
#undef X
#define X(ACTIVATION, sigma)                                       \
    case NNCORE_##ACTIVATION:                                      \
        for (ptrdiff_t i = 0; i < n_rows * n; i += n)              \
            FOR_EACH_VECTOR (j, count, n) {                        \
                V derivative, z = LOAD(A + i + j, count);          \
                if (b)                                             \
                    z += LOAD(b + j, count);                       \
                STORE(A + i + j, sigma(z, &derivative), count);    \
                if (derivatives)                                   \
                    STORE(derivatives + i + j, derivative, count); \
            }                                                      \
        break;
        FOR_EACH_KEPT_ACTIVATION(X)
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
#define X(ACTIVATION, sigma, derivative)                                  \
    case NNCORE_##ACTIVATION:                                             \
        FOR_EACH_VECTOR (i, left, count) {                                \
            const V a = LOAD(A + i, left);                                \
            (void)a; /* identity */                                       \
            STORE(delta + i, LOAD(delta + i, left) * (derivative), left); \
        }                                                                 \
        break;
        FOR_EACH_ACTIVATION(X)
#undef X
    case NNCORE_SILU:
    case NNCORE_GELU:
    case NNCORE_GELU_TANH: /* A is sigma'(Z) */
        FOR_EACH_VECTOR (i, left, count)
            STORE(delta + i, LOAD(delta + i, left) * LOAD(A + i, left), left);
        break;
    case NNCORE_SOFTMAX: /* an output's only, see output_delta */
        break;
    }
}
