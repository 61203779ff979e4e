/* The updates (6), on flat vectors. */

#pragma once

#include "vector.h"

static void sgd(void *parameters_, const void *gradient_, double learning_rate, double weight_decay,
                ptrdiff_t count) {
    real *w = parameters_;
    const real *gradient = gradient_;
    const V rate = broadcast((real)learning_rate), decay = broadcast((real)weight_decay);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        STORE(w + i, x - rate * g, left);
    }
}

static void momentum(void *parameters_, void *velocity_, const void *gradient_,
                     double learning_rate, double momentum, int nesterov, double weight_decay,
                     ptrdiff_t count) {
    real *w = parameters_, *velocity = velocity_;
    const real *gradient = gradient_;
    const V rate = broadcast((real)learning_rate), decay = broadcast((real)weight_decay);
    const V mu = broadcast((real)momentum);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        const V v = mu * LOAD(velocity + i, left) - rate * g;
        STORE(velocity + i, v, left);
        STORE(w + i, x + (nesterov ? mu * v - rate * g : v), left);
    }
}

static void adam(void *parameters_, void *m_, void *v_, const void *gradient_, double step_size,
                 double beta_1, double beta_2, double epsilon, double weight_decay,
                 ptrdiff_t count) {
    real *w = parameters_, *m = m_, *v = v_;
    const real *gradient = gradient_;
    const V decay = broadcast((real)weight_decay), step = broadcast((real)step_size);
    const V b1 = broadcast((real)beta_1), b2 = broadcast((real)beta_2);
    const V c1 = broadcast((real)(1 - beta_1)), c2 = broadcast((real)(1 - beta_2));
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        const V m_new = multiply_add(b1, LOAD(m + i, left), c1 * g);
        const V v_new = multiply_add(b2, LOAD(v + i, left), c2 * g * g);
        STORE(m + i, m_new, left);
        STORE(v + i, v_new, left);
        STORE(w + i, x - step * m_new / (vector_sqrt(v_new) + (real)epsilon), left);
    }
}
