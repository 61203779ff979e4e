/* Dropout (N. Srivastava and others, Dropout: a simple way to prevent neural networks from
 * overfitting, 2014) with a counter in place of a generator's state. A template, see vector.h.
 *
 * Every number follows from what it is for, so that nobody has to wait for another's turn and the
 * backward pass draws the forward pass's units again: mix is SplitMix64's (G. Steele, D. Lea,
 * C. Flood, Fast splittable pseudorandom number generators, 2014), fed with the seed, then the
 * step, the layer, the example and half the unit, one into the result of the other. Even units take
 * the lower half of the result's 64 bits, odd ones the upper; below rate 2^32 they are dropped. */

#ifndef NNCORE_DROPOUT_ONCE
#define NNCORE_DROPOUT_ONCE
static inline uint64_t nncore_mix(uint64_t state, uint64_t counter) {
    uint64_t x = state + (counter + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}
#endif

#define DROPOUT_BLOCK 64

/* What `count` units of an example from the even number `first` on are multiplied with. */
static void NAME(dropout_factors)(real *factors, uint64_t example, ptrdiff_t first, ptrdiff_t count,
                                  double rate) {
    const uint64_t threshold = (uint64_t)(rate * 4294967296.0);
    const real kept = (real)(1 / (1 - rate));
    for (ptrdiff_t j = 0; j < count; j += 2) {
        const uint64_t both = nncore_mix(example, (uint64_t)(first + j) / 2);
        factors[j] = (both & UINT32_MAX) < threshold ? 0 : kept;
        factors[j + 1] = both >> 32 < threshold ? 0 : kept;
    }
}

/* Both functions, which differ in what they do to a block of a row. */
#define DEFINE_DROPOUT(name, PARAMETERS, BLOCK)                                        \
    static void NAME(name) PARAMETERS {                                                \
        const uint64_t key = nncore_mix(nncore_mix(nncore_mix(0, seed), step), l);     \
        for (ptrdiff_t column = 0; column < n; column += panel) {                      \
            const ptrdiff_t width = NAME(width_of)(panel, column, n);                  \
            const ptrdiff_t columns = n - column < width ? n - column : width;         \
            for (ptrdiff_t i = row; i < row + n_rows; i++) {                           \
                const uint64_t example = nncore_mix(key, first_example + (uint64_t)i); \
                for (ptrdiff_t j = 0; j < columns; j += DROPOUT_BLOCK) {               \
                    const ptrdiff_t count =                                            \
                        columns - j < DROPOUT_BLOCK ? columns - j : DROPOUT_BLOCK;     \
                    const ptrdiff_t at = column * capacity + i * width + j;            \
                    real factors[DROPOUT_BLOCK + 1];                                   \
                    NAME(dropout_factors)(factors, example, column + j, count, rate);  \
                    BLOCK                                                              \
                }                                                                      \
            }                                                                          \
        }                                                                              \
    }

DEFINE_DROPOUT(dropout,
               (void *A, double rate, uint64_t seed, uint64_t step, uint64_t l,
                uint64_t first_example, ptrdiff_t panel, ptrdiff_t row, ptrdiff_t n_rows,
                ptrdiff_t capacity, ptrdiff_t n),
               {
                   real *a = (real *)A + at;
                   FOR_EACH_VECTOR (k, left, count)
                       STORE(a + k, LOAD(a + k, left) * LOAD(factors + k, left), left);
               })

DEFINE_DROPOUT(dropout_derivative,
               (void *delta, const void *A, enum nncore_activation activation, double rate,
                uint64_t seed, uint64_t step, uint64_t l, uint64_t first_example, ptrdiff_t panel,
                ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n),
               {
                   /* sigma' follows from the activation that stood there before the division. */
                   real *d = (real *)delta + at;
                   const real *a = (const real *)A + at;
                   real before[DROPOUT_BLOCK];
                   FOR_EACH_VECTOR (k, left, count)
                       STORE(before + k, LOAD(a + k, left) * (real)(1 - rate), left);
                   NAME(times_derivative)(d, before, activation, count);
                   FOR_EACH_VECTOR (k, left, count)
                       STORE(d + k, LOAD(d + k, left) * LOAD(factors + k, left), left);
               })
