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
                     int accumulates, ptrdiff_t count) {
    real *w = parameters_, *velocity = velocity_;
    const real *gradient = gradient_;
    const V decay = broadcast((real)weight_decay), mu = broadcast((real)momentum);
    const V into = broadcast(accumulates ? 1 : -(real)learning_rate);
    const V out = broadcast(accumulates ? -(real)learning_rate : 1);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        const V v = mu * LOAD(velocity + i, left) + into * g;
        STORE(velocity + i, v, left);
        STORE(w + i, x + out * (nesterov ? mu * v + into * g : v), left);
    }
}

/* With v_max, AMSGrad. Inlined, so that Adam pays nothing for it. */
INLINE void adam_or_amsgrad(real *w, real *m, real *v, real *v_max, const real *gradient,
                            double step_size, double beta_1, double beta_2, double epsilon,
                            double weight_decay, ptrdiff_t count) {
    const V decay = broadcast((real)weight_decay), step = broadcast((real)step_size);
    const V b1 = broadcast((real)beta_1), b2 = broadcast((real)beta_2);
    const V c1 = broadcast((real)(1 - beta_1)), c2 = broadcast((real)(1 - beta_2));
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        const V m_new = multiply_add(b1, LOAD(m + i, left), c1 * g);
        const V v_new = multiply_add(b2, LOAD(v + i, left), c2 * g * g);
        V divisor = v_new;
        STORE(m + i, m_new, left);
        STORE(v + i, v_new, left);
        if (v_max) {
            divisor = at_least(v_new, LOAD(v_max + i, left));
            STORE(v_max + i, divisor, left);
        }
        STORE(w + i, x - step * m_new / (vector_sqrt(divisor) + (real)epsilon), left);
    }
}

static void adam(void *parameters, void *m, void *v, const void *gradient, double step_size,
                 double beta_1, double beta_2, double epsilon, double weight_decay,
                 ptrdiff_t count) {
    adam_or_amsgrad(parameters, m, v, NULL, gradient, step_size, beta_1, beta_2, epsilon,
                    weight_decay, count);
}

static void amsgrad(void *parameters, void *m, void *v, void *v_max, const void *gradient,
                    double step_size, double beta_1, double beta_2, double epsilon,
                    double weight_decay, ptrdiff_t count) {
    adam_or_amsgrad(parameters, m, v, v_max, gradient, step_size, beta_1, beta_2, epsilon,
                    weight_decay, count);
}

static void rmsprop(void *parameters_, void *v_, void *mean_, void *velocity_,
                    const void *gradient_, double learning_rate, double rho, double momentum,
                    double epsilon, double weight_decay, ptrdiff_t count) {
    real *w = parameters_, *v = v_, *mean = mean_, *velocity = velocity_;
    const real *gradient = gradient_;
    const V rate = broadcast((real)learning_rate), decay = broadcast((real)weight_decay);
    const V b = broadcast((real)rho), c = broadcast((real)(1 - rho));
    const V mu = broadcast((real)momentum);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = multiply_add(decay, x, LOAD(gradient + i, left));
        const V v_new = multiply_add(b, LOAD(v + i, left), c * g * g);
        V variance = v_new;
        STORE(v + i, v_new, left);
        if (mean) {
            const V mean_new = multiply_add(b, LOAD(mean + i, left), c * g);
            STORE(mean + i, mean_new, left);
            /* Rounding may take it below 0. */
            variance = at_least(v_new - mean_new * mean_new, (V){0});
        }
        V step = g / (vector_sqrt(variance) + (real)epsilon);
        if (velocity) {
            step = multiply_add(mu, LOAD(velocity + i, left), step);
            STORE(velocity + i, step, left);
        }
        STORE(w + i, x - rate * step, left);
    }
}
