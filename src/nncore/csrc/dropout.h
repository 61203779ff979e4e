/* Dropout (N. Srivastava and others, Dropout: a simple way to prevent neural networks from
 * overfitting, 2014) with a counter instead of a generator's state.
 *
 * Every random number follows from its place alone, so that threads need no order and the backward
 * pass draws the same units again. SplitMix64's mix (G. Steele, D. Lea, C. Flood, Fast splittable
 * pseudorandom number generators, 2014) is chained over the seed, the step, the layer, the example
 * and half the unit's index. Even units take the lower half of the resulting 64 bits, odd units the
 * upper half; a unit whose half is below rate 2^32 is dropped. */

#pragma once

#include "activations.h"
#include "panels.h"
#include "vector.h"

/* Units whose factors are drawn at a time: they stay in L1 until they are used. */
#define DROPOUT_BLOCK 64

static inline uint64_t mix(uint64_t state, uint64_t counter) {
    uint64_t x = state + (counter + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* 0 or 1 / (1 - rate) for `count` units of an example, from the even number `first` on. */
static void dropout_factors(real *factors, uint64_t example, ptrdiff_t first, ptrdiff_t count,
                            double rate) {
    const uint64_t threshold = (uint64_t)(rate * 4294967296.0);
    const real kept = (real)(1 / (1 - rate));
    for (ptrdiff_t j = 0; j < count; j += 2) {
        const uint64_t both = mix(example, (uint64_t)(first + j) / 2);
        factors[j] = (both & UINT32_MAX) < threshold ? 0 : kept;
        factors[j + 1] = both >> 32 < threshold ? 0 : kept;
    }
}

/* x <- x . factors, after x <- x . sigma'(Z) if A, the activations after dropout, is given. */
INLINE void apply_dropout(real *x, const real *A, nncore_sigma sigma, double rate, uint64_t seed,
                          uint64_t step, uint64_t l, uint64_t first_example, ptrdiff_t first_unit,
                          ptrdiff_t panel_width, ptrdiff_t row, ptrdiff_t n_rows,
                          ptrdiff_t capacity, ptrdiff_t n) {
    const uint64_t key = mix(mix(mix(0, seed), step), l);
    for (ptrdiff_t column = 0; column < n; column += panel_width) {
        const ptrdiff_t width = width_at(column, panel_width, n);
        const ptrdiff_t columns = n - column < width ? n - column : width;
        for (ptrdiff_t i = row; i < row + n_rows; i++) {
            const uint64_t example = mix(key, first_example + (uint64_t)i);
            for (ptrdiff_t j = 0; j < columns; j += DROPOUT_BLOCK) {
                const ptrdiff_t count = columns - j < DROPOUT_BLOCK ? columns - j : DROPOUT_BLOCK;
                const ptrdiff_t at = column * capacity + i * width + j;
                real factors[DROPOUT_BLOCK + 1];
                dropout_factors(factors, example, first_unit + column + j, count, rate);
                if (A) { /* sigma' follows from the activations before the division by 1 - rate */
                    real before[DROPOUT_BLOCK];
                    FOR_EACH_VECTOR (k, left, count)
                        STORE(before + k, LOAD(A + at + k, left) * (real)(1 - rate), left);
                    times_derivative(x + at, before, sigma, count);
                }
                FOR_EACH_VECTOR (k, left, count)
                    STORE(x + at + k, LOAD(x + at + k, left) * LOAD(factors + k, left), left);
            }
        }
    }
}

static void dropout(void *A, double rate, uint64_t seed, uint64_t step, uint64_t l,
                    uint64_t first_example, ptrdiff_t first_unit, ptrdiff_t panel_width,
                    ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n) {
    apply_dropout(A, NULL, (nncore_sigma){NNCORE_IDENTITY, 0}, rate, seed, step, l, first_example,
                  first_unit, panel_width, row, n_rows, capacity, n);
}

static void dropout_derivative(void *delta, const void *A, nncore_sigma sigma, double rate,
                               uint64_t seed, uint64_t step, uint64_t l, uint64_t first_example,
                               ptrdiff_t first_unit, ptrdiff_t panel_width, ptrdiff_t row,
                               ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n) {
    apply_dropout(delta, A, sigma, rate, seed, step, l, first_example, first_unit, panel_width, row,
                  n_rows, capacity, n);
}
