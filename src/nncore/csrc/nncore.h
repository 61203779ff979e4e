/* The C core's interface: the names of activations and losses, and the table of functions that
 * each instruction set fills in for float and for double.
 *
 * Every function works on whole arrays in C order, an example per row: outputs first, inputs after,
 * sizes last. Nothing here allocates, and arguments are trusted. `void *` stands for `float *` or
 * `double *`, by the table the function was taken from. */

#ifndef NNCORE_H
#define NNCORE_H

#include <stddef.h>

#if defined(__x86_64__)
#define NNCORE_X86
#endif

/* Each name once; elementwise.h gives each its sigma and sigma' on a vector. */
#define NNCORE_ELEMENTWISE_ACTIVATIONS(X) \
    X(IDENTITY, identity)                 \
    X(SIGMOID, sigmoid)                   \
    X(TANH, tanh)                         \
    X(RELU, relu)                         \
    X(LEAKY_RELU, leaky_relu)             \
    X(ELU, elu)                           \
    X(SOFTPLUS, softplus)

enum nncore_activation {
#define X(NAME, function) NNCORE_##NAME,
    NNCORE_ELEMENTWISE_ACTIVATIONS(X)
#undef X
        NNCORE_SOFTMAX
};

enum nncore_loss { NNCORE_SQUARED_ERROR, NNCORE_BINARY_CROSS_ENTROPY, NNCORE_CROSS_ENTROPY };

enum nncore_function { NNCORE_EXP, NNCORE_LOG };

typedef struct {
    const char *name;

    /* A <- sigma(A + b), the second half of (1); A is n_rows x n, b is n. */
    void (*bias_activation)(void *A, const void *b, enum nncore_activation activation,
                            ptrdiff_t n_rows, ptrdiff_t n);

    /* delta <- delta . sigma'(Z), the second half of (4), with sigma' from A (7). */
    void (*times_derivative)(void *delta, const void *A, enum nncore_activation activation,
                             ptrdiff_t count);

    /* Sum over the rows of weight times the loss of the row, (2); sample_weight is n_rows or NULL.
     */
    double (*loss)(const void *A, const void *Y, const void *sample_weight, enum nncore_loss loss,
                   ptrdiff_t n_rows, ptrdiff_t n);

    /* delta <- weight * dE/dZ of the output layer, (3). */
    void (*output_delta)(void *delta, const void *A, const void *Y, const void *sample_weight,
                         enum nncore_loss loss, enum nncore_activation activation, ptrdiff_t n_rows,
                         ptrdiff_t n);

    /* db <- beta * db + scale * (delta . 1), the bias's part of (5). */
    void (*column_sums)(void *db, const void *delta, double scale, double beta, ptrdiff_t n_rows,
                        ptrdiff_t n);

    /* (6): gradient descent, with momentum, and Adam, on flat vectors. */
    void (*sgd)(void *parameters, const void *gradient, double learning_rate, double weight_decay,
                ptrdiff_t count);
    void (*momentum)(void *parameters, void *velocity, const void *gradient, double learning_rate,
                     double momentum, int nesterov, double weight_decay, ptrdiff_t count);
    void (*adam)(void *parameters, void *m, void *v, const void *gradient, double step_size,
                 double beta_1, double beta_2, double epsilon, double weight_decay,
                 ptrdiff_t count);

    /* out <- f(x), for the tests of accuracy and for loops of one's own. */
    void (*map)(void *out, const void *x, enum nncore_function function, ptrdiff_t count);

    /* The index of the first NaN or infinity, or count. */
    ptrdiff_t (*first_nonfinite)(const void *x, ptrdiff_t count);
} nncore_elementwise;

/* The tables of the widest vectors that this machine has, set by nncore_choose. */
extern const nncore_elementwise *nncore_f32, *nncore_f64;

void nncore_choose(void);

#endif
