/* The C core's interface: a table of functions, for each instruction set and for float and double.
 *
 * Every function works on whole arrays, an example per row: outputs first, inputs after, sizes
 * last. Nothing here allocates, and arguments are trusted. `void *` stands for `float *` or
 * `double *`, by the table that the function was taken from. The numbers in parentheses are the
 * equations of the README's table, after T. Zollner, "Matrizen in Neuronalen Netzen". */

#ifndef NNCORE_H
#define NNCORE_H

#include <stddef.h>
#include <stdint.h>

/* activations.h defines each. */
enum nncore_activation {
    NNCORE_IDENTITY,
    NNCORE_SIGMOID,
    NNCORE_TANH,
    NNCORE_RELU,
    NNCORE_LEAKY_RELU,
    NNCORE_ELU,
    NNCORE_SOFTPLUS,
    NNCORE_EXPONENTIAL,
    NNCORE_SILU,
    NNCORE_GELU,
    NNCORE_GELU_TANH,
    NNCORE_SOFTMAX
};

/* The slope is that of LEAKY_RELU below 0, and that of ELU at 0 from below, its alpha. */
typedef struct {
    enum nncore_activation kind;
    double slope;
} nncore_sigma;

/* Whether sigma' does not follow from sigma, so that the backward pass needs sigma'(Z) itself:
 * `derivatives`, which forward has written. */
static inline int nncore_keeps_derivatives(nncore_sigma sigma) {
    if (sigma.kind == NNCORE_LEAKY_RELU || sigma.kind == NNCORE_ELU)
        return sigma.slope < 0;
    return sigma.kind >= NNCORE_SILU && sigma.kind < NNCORE_SOFTMAX;
}

enum nncore_loss {
    NNCORE_SQUARED_ERROR,
    NNCORE_BINARY_CROSS_ENTROPY,
    NNCORE_CROSS_ENTROPY,
    NNCORE_POISSON,
    NNCORE_ABSOLUTE_ERROR,
    NNCORE_HUBER,
    NNCORE_CUSTOM /* sum of y a: Y is dE/dA, which somebody else has computed */
};

enum nncore_function { NNCORE_EXP, NNCORE_LOG };

/* The types that examples may have; gather converts them. */
enum nncore_source { NNCORE_FLOAT32, NNCORE_FLOAT64, NNCORE_UINT8 };

typedef struct {
    const char *name;

    /* The functions of this part work on matrices in panels of this width, see panels.h, and on
     * rows `row` to `row + n_rows` of A and delta, which have room for `capacity` rows. */
    ptrdiff_t panel_width;

    /* Rows `row` to `row + n_rows` of A <- rows order[first], order[first + 1], ... of X, or rows
     * from `first` on if order is NULL, with distances in bytes. n_order is order's length. */
    void (*gather)(void *A, const void *X, enum nncore_source source, ptrdiff_t row_stride,
                   ptrdiff_t column_stride, const ptrdiff_t *order, ptrdiff_t n_order,
                   ptrdiff_t first, ptrdiff_t panel_width, ptrdiff_t row, ptrdiff_t n_rows,
                   ptrdiff_t capacity, ptrdiff_t n);

    /* The row-major n_rows x n array `out` <- rows of A. With capacity n_prev, gather and scatter
     * pack and unpack W. */
    void (*scatter)(void *out, const void *A, ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity,
                    ptrdiff_t n);

    /* W_transposed <- the transpose of W's panel p, inputs k_begin (a multiple of the panel's
     * width) to k_end. */
    void (*transpose)(void *W_transposed, const void *W, ptrdiff_t p, ptrdiff_t k_begin,
                      ptrdiff_t k_end, ptrdiff_t n_prev, ptrdiff_t n);

    /* (1): A <- sigma(W A_prev + b). If A_stride is not 0, A_prev is a row-major array whose rows
     * are that many elements apart. If sigma' does not follow from A, derivatives, which lies as A
     * does, becomes sigma'(Z) unless it is NULL. Softmax needs all units in one panel. */
    void (*forward)(void *A, void *derivatives, const void *A_prev, ptrdiff_t A_stride,
                    const void *W, const void *b, nncore_sigma sigma, ptrdiff_t row,
                    ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n_prev, ptrdiff_t n);

    /* (4): delta_prev <- W^T delta . sigma'(Z_prev); `sigma` is that of A_prev. Here and below
     * the derivatives take the place of A where sigma' does not follow from A. */
    void (*delta)(void *delta_prev, const void *delta, const void *W_transposed, const void *A_prev,
                  nncore_sigma sigma, ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity,
                  ptrdiff_t n_prev, ptrdiff_t n);

    /* (5): dW <- beta dW + scale delta A_prev^T for panels p_begin to p_end of n, all of one width,
     * and inputs k_begin (a multiple of panel_width) to k_end. dW points to the first panel's row
     * k_begin; that of the next panel is panel_step elements further. */
    void (*gradient)(void *dW, const void *delta, const void *A_prev, double scale, double beta,
                     ptrdiff_t panel_step, ptrdiff_t p_begin, ptrdiff_t p_end, ptrdiff_t k_begin,
                     ptrdiff_t k_end, ptrdiff_t n_examples, ptrdiff_t capacity, ptrdiff_t n_prev,
                     ptrdiff_t n);

    /* The rest works on row-major arrays; a single panel of width n is one. */

    /* (1) for a few rows, with W as the network has it; every sum as in `forward`. */
    void (*forward_rows)(void *A, const void *A_prev, const void *W, const void *b,
                         nncore_sigma sigma, ptrdiff_t n_rows, ptrdiff_t n_prev, ptrdiff_t n);

    /* A <- sigma(A + b), the second half of (1); A is n_rows x n, b is n or NULL; derivatives as in
     * forward. */
    void (*bias_activation)(void *A, void *derivatives, const void *b, nncore_sigma sigma,
                            ptrdiff_t n_rows, ptrdiff_t n);

    /* delta <- delta . sigma'(Z), the second half of (4), with sigma' from A (7). */
    void (*times_derivative)(void *delta, const void *A, nncore_sigma sigma, ptrdiff_t count);

    /* Dropout, also in panels: in rows `row` to `row + n_rows` of A, set the units that step `step`
     * drops from layer l to 0 and divide the others by 1 - rate. The arguments alone determine
     * which units, see dropout.h; row i is example first_example + i of the batch, and A has the
     * units from `first_unit` on, which is even. */
    void (*dropout)(void *A, double rate, uint64_t seed, uint64_t step, uint64_t l,
                    uint64_t first_example, ptrdiff_t first_unit, ptrdiff_t panel_width,
                    ptrdiff_t row, ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n);

    /* delta <- delta . sigma'(Z) / (1 - rate), 0 for the dropped units; A is that after dropout. */
    void (*dropout_derivative)(void *delta, const void *A, nncore_sigma sigma, double rate,
                               uint64_t seed, uint64_t step, uint64_t l, uint64_t first_example,
                               ptrdiff_t first_unit, ptrdiff_t panel_width, ptrdiff_t row,
                               ptrdiff_t n_rows, ptrdiff_t capacity, ptrdiff_t n);

    /* out[i] <- weights[order ? order[first + i] : first + i]; returns their sum in double. */
    double (*gather_weights)(void *out, const void *weights, const ptrdiff_t *order,
                             ptrdiff_t first, ptrdiff_t n_rows);

    /* The sum over the rows of weight times loss (2); sample_weight is n_rows or NULL. Huber's loss
     * is linear beyond the threshold. Here and in the next three a row of weight 0 counts as 0,
     * even if it is not finite, and the rows of A, Y, delta and derivatives are `stride` elements
     * apart: n, or the width of the only panel. */
    double (*loss)(const void *A, const void *Y, const void *sample_weight, enum nncore_loss loss,
                   double threshold, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride);

    /* delta <- weight * dE/dZ of the output layer, (3); derivatives is A where sigma' follows from
     * A. */
    void (*output_delta)(void *delta, const void *A, const void *derivatives, const void *Y,
                         const void *sample_weight, enum nncore_loss loss, double threshold,
                         nncore_sigma sigma, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride);

    /* Both of cross entropy and softmax, for targets that are 0 but for a 1 in row i's column
     * classes[order ? order[first + i] : first + i]. */
    double (*class_loss)(const void *A, const ptrdiff_t *classes, const ptrdiff_t *order,
                         ptrdiff_t first, const void *sample_weight, ptrdiff_t n_rows,
                         ptrdiff_t stride);
    void (*class_delta)(void *delta, const void *A, const ptrdiff_t *classes,
                        const ptrdiff_t *order, ptrdiff_t first, const void *sample_weight,
                        ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride);

    /* db <- beta * db + scale * (delta . 1), the bias's part of (5). */
    void (*column_sums)(void *db, const void *delta, double scale, double beta, ptrdiff_t n_rows,
                        ptrdiff_t n);

    /* (6) on flat vectors: gradient descent, with momentum, Adam, AMSGrad and RMSprop. */
    void (*sgd)(void *parameters, const void *gradient, double learning_rate, double weight_decay,
                ptrdiff_t count);
    /* The velocity adds up steps or, if `accumulates`, gradients. */
    void (*momentum)(void *parameters, void *velocity, const void *gradient, double learning_rate,
                     double momentum, int nesterov, double weight_decay, int accumulates,
                     ptrdiff_t count);
    void (*adam)(void *parameters, void *m, void *v, const void *gradient, double step_size,
                 double beta_1, double beta_2, double epsilon, double weight_decay,
                 ptrdiff_t count);
    void (*amsgrad)(void *parameters, void *m, void *v, void *v_max, const void *gradient,
                    double step_size, double beta_1, double beta_2, double epsilon,
                    double weight_decay, ptrdiff_t count);
    /* mean and velocity may be NULL. */
    void (*rmsprop)(void *parameters, void *v, void *mean, void *velocity, const void *gradient,
                    double learning_rate, double rho, double momentum, double epsilon,
                    double weight_decay, ptrdiff_t count);

    /* The sum of the squares of n_rows x n elements, rows `stride` apart. */
    double (*square_sum)(const void *x, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride);

    /* x <- factor x. */
    void (*scale)(void *x, double factor, ptrdiff_t count);

    /* out <- f(x). */
    void (*map)(void *out, const void *x, enum nncore_function function, ptrdiff_t count);

    /* Whether none of n_rows x n elements, rows `stride` apart, is NaN or infinite. */
    int (*finite)(const void *x, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride);

    /* The index of the first element that is not within -limit and limit, or count. */
    ptrdiff_t (*first_beyond)(const void *x, double limit, ptrdiff_t count);
} nncore_kernels;

/* The tables that nncore_choose has set. Both functions return 0 if the processor or the system
 * does not support the instruction set of that name. */
extern const nncore_kernels *nncore_f32, *nncore_f64;

int nncore_choose(const char *name);
int nncore_supports(const char *name);

/* What compiled it. */
extern const char nncore_compiler[];

#endif
