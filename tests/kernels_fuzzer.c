/* Lets libFuzzer call every function of the C core with shapes, options and numbers that its input
 * chooses. ./sanitize fuzz compiles and runs it.
 *
 * Arrays are no longer than the interface says, so that the sanitizers notice every access beyond
 * them. Each call is made twice, with other bytes in outputs and padding, and must give the same
 * bits: outputs are overwritten, and padding never enters a result. Nor may a function touch rows
 * or tiles that are not its own, since other threads work on them. */

#include <stdlib.h>
#include <string.h>

#include "nncore.h"

#define MOST_UNITS 70
#define MOST_ROWS 40

/* What is left of the input, and the generator of numbers, which the input begins. */
static const uint8_t *choices;
static size_t n_choices;
static uint64_t state;

static const nncore_kernels *k;
static int is_double;
static ptrdiff_t size, lanes;

/* What outputs and padding hold before a call: zeros, or NaN. */
static uint8_t byte;
/* Of all results of a call. */
static uint64_t hash;
static void *blocks[16];
static size_t n_blocks;

/* One of 0 to n - 1. */
static ptrdiff_t choose(ptrdiff_t n) {
    if (n_choices == 0)
        return 0;
    n_choices--;
    return *choices++ % n;
}

static ptrdiff_t between(ptrdiff_t low, ptrdiff_t high) { return low + choose(high - low + 1); }

static uint64_t random_bits(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return state ^ state >> 32;
}

/* From moderate to any, NaN, infinities and subnormal numbers included. */
static double number(void) {
    static const ptrdiff_t exponents[] = {0, 4, 16, 64};
    const uint64_t bits = random_bits();
    double x = (double)(int32_t)bits / 2147483648.0;
    if (state >> 8 & 1)
        return x;
    if ((state >> 9 & 15) == 0)
        memcpy(&x, &bits, sizeof x);
    for (ptrdiff_t i = exponents[state >> 16 & 3]; i > 0; i--)
        x *= 2;
    return x;
}

static double coefficient(void) {
    static const double values[] = {0, 1, 0.5, -0.1, 0.999, 1e-8, 1e30};
    return values[choose(sizeof values / sizeof *values)];
}

/* `count` bytes to write to, none beyond. */
static void *bytes(ptrdiff_t count) {
    void *block = NULL;
    if (posix_memalign(&block, 64, (size_t)count))
        abort();
    blocks[n_blocks++] = block;
    return memset(block, byte, (size_t)count);
}

static void *room(ptrdiff_t count) { return bytes(count * size); }

static void set(void *x, ptrdiff_t i, double value) {
    if (is_double)
        ((double *)x)[i] = value;
    else
        ((float *)x)[i] = (float)value;
}

static void *numbers(ptrdiff_t count) {
    void *x = room(count);
    for (ptrdiff_t i = 0; i < count; i++)
        set(x, i, number());
    return x;
}

static void add_to_hash(const void *x, ptrdiff_t count) {
    for (const uint8_t *b = x, *end = b + count; b < end; b++)
        hash = (hash ^ *b) * UINT64_C(1099511628211);
}

static void result(const void *x, ptrdiff_t count) { add_to_hash(x, count * size); }

static void value(double x) { add_to_hash(&x, sizeof x); }

/* Rows of a matrix in panels, see panels.h. */
typedef struct {
    ptrdiff_t row, n_rows, capacity;
} rows;

static rows choose_rows(void) {
    rows r = {choose(4), between(1, MOST_ROWS), 0};
    r.capacity = r.row + r.n_rows + choose(4);
    return r;
}

static ptrdiff_t whole_vectors(ptrdiff_t count) { return (count + lanes - 1) / lanes * lanes; }

static ptrdiff_t width_of_panel(ptrdiff_t column, ptrdiff_t n) {
    return n == 1 ? 1 : n - column <= lanes ? lanes : 2 * lanes;
}

static ptrdiff_t place(ptrdiff_t i, ptrdiff_t j, ptrdiff_t capacity, ptrdiff_t n) {
    const ptrdiff_t column = j - j % (2 * lanes);
    return column * capacity + i * width_of_panel(column, n) + j - column;
}

static void *room_in_panels(ptrdiff_t capacity, ptrdiff_t n) {
    return room(whole_vectors(capacity * (n == 1 ? 1 : whole_vectors(n))));
}

static void *numbers_in_panels(rows r, ptrdiff_t n) {
    void *A = room_in_panels(r.capacity, n);
    for (ptrdiff_t i = r.row; i < r.row + r.n_rows; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            set(A, place(i, j, r.capacity, n), number());
    return A;
}

static void expect_untouched(const void *x, ptrdiff_t begin, ptrdiff_t count) {
    const uint8_t *b = (const uint8_t *)x + begin * size;
    for (ptrdiff_t i = 0; i < count * size; i++)
        if (b[i] != byte)
            abort();
}

static void result_in_panels(const void *A, rows r, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < r.capacity; i++)
        for (ptrdiff_t j = 0; j < n; j++) {
            const ptrdiff_t at = place(i, j, r.capacity, n);
            if (i >= r.row && i < r.row + r.n_rows)
                result((const char *)A + at * size, 1);
            else
                expect_untouched(A, at, 1);
        }
}

/* W of a layer, or the transpose of a next one. */
static void *weights(ptrdiff_t n_prev, ptrdiff_t n) {
    return numbers_in_panels((rows){0, n_prev, n_prev}, n);
}

static nncore_sigma choose_sigma(int n_kinds) {
    const nncore_sigma sigma = {(enum nncore_activation)choose(n_kinds), coefficient()};
    return sigma;
}

/* An order of some of n rows; NULL for the rows from `first` on. */
static const ptrdiff_t *choose_order(ptrdiff_t n_rows, ptrdiff_t first, ptrdiff_t n) {
    if (choose(2))
        return NULL;
    ptrdiff_t *order = bytes((first + n_rows) * (ptrdiff_t)sizeof *order);
    for (ptrdiff_t i = 0; i < first + n_rows; i++)
        order[i] = (ptrdiff_t)(random_bits() % (uint64_t)n);
    return order;
}

static void *choose_weights(ptrdiff_t n_rows) {
    if (choose(2))
        return NULL;
    void *w = numbers(n_rows);
    for (ptrdiff_t i = choose(3); i < n_rows; i += 3)
        set(w, i, 0);
    return w;
}

/* The functions on panels. */

static void call_gather(void) {
    static const ptrdiff_t sizes[] = {4, 8, 1};
    const rows r = choose_rows();
    const ptrdiff_t n = between(1, MOST_UNITS), first = choose(5), kind = choose(3);
    const ptrdiff_t n_X = first + r.n_rows + choose(3), step = sizes[kind] * between(1, 2);
    const ptrdiff_t row_stride = step * n, count = n_X * row_stride;
    const ptrdiff_t in_panels = choose(4) > 0, backward = choose(4) == 0;
    const ptrdiff_t *order = choose_order(r.n_rows, first, n_X);
    char *X = bytes(count);
    for (ptrdiff_t i = 0; i < count; i += step)
        if (kind == NNCORE_UINT8)
            X[i] = (char)random_bits();
        else if (kind == NNCORE_FLOAT64)
            memcpy(X + i, (double[]){number()}, 8);
        else
            memcpy(X + i, (float[]){(float)number()}, 4);
    void *A = in_panels ? room_in_panels(r.capacity, n) : room(r.capacity * n);
    k->gather(A, backward ? X + count - row_stride : X, (enum nncore_source)kind,
              backward ? -row_stride : row_stride, step, order, order ? first + r.n_rows : n_X,
              first, in_panels ? k->panel_width : n, r.row, r.n_rows, r.capacity, n);
    if (in_panels)
        result_in_panels(A, r, n);
    else
        result((char *)A + r.row * n * size, r.n_rows * n);
}

static void call_scatter(void) {
    const rows r = choose_rows();
    const ptrdiff_t n = between(1, MOST_UNITS);
    void *A = numbers_in_panels(r, n), *out = room(r.n_rows * n);
    k->scatter(out, A, r.row, r.n_rows, r.capacity, n);
    result(out, r.n_rows * n);
}

static void call_transpose(void) {
    const ptrdiff_t n_prev = between(1, MOST_UNITS), n = between(1, MOST_UNITS), w = k->panel_width;
    const ptrdiff_t p = choose((n + w - 1) / w), k_begin = choose((n_prev + w - 1) / w) * w;
    const ptrdiff_t k_end = choose(2) && k_begin + w < n_prev ? k_begin + w : n_prev;
    void *W = weights(n_prev, n), *T = room_in_panels(n, n_prev);
    k->transpose(T, W, p, k_begin, k_end, n_prev, n);
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t h = 0; h < n_prev; h++) {
            const ptrdiff_t at = place(j, h, n, n_prev);
            if (j / w == p && h >= k_begin && h < k_end)
                result((char *)T + at * size, 1);
            else
                expect_untouched(T, at, 1);
        }
}

static void call_forward(void) {
    const rows r = choose_rows();
    const ptrdiff_t n_prev = between(1, MOST_UNITS), n = between(1, MOST_UNITS);
    const nncore_sigma sigma =
        choose_sigma(n <= k->panel_width ? NNCORE_SOFTMAX + 1 : NNCORE_SOFTMAX);
    const ptrdiff_t stride = choose(2) ? 0 : n_prev + choose(3);
    const int keeps = nncore_keeps_derivatives(sigma) && choose(4);
    void *A_prev =
        stride ? numbers((r.row + r.n_rows - 1) * stride + n_prev) : numbers_in_panels(r, n_prev);
    void *W = weights(n_prev, n), *b = weights(1, n);
    void *A = room_in_panels(r.capacity, n), *derivatives = room_in_panels(r.capacity, n);
    k->forward(A, keeps ? derivatives : NULL, A_prev, stride, W, b, sigma, r.row, r.n_rows,
               r.capacity, n_prev, n);
    result_in_panels(A, r, n);
    if (keeps)
        result_in_panels(derivatives, r, n);
}

static void call_delta(void) {
    const rows r = choose_rows();
    const ptrdiff_t n_prev = between(1, MOST_UNITS), n = between(1, MOST_UNITS);
    const nncore_sigma sigma = choose_sigma(NNCORE_SOFTMAX);
    void *D = numbers_in_panels(r, n), *T = weights(n, n_prev);
    void *A_prev = numbers_in_panels(r, n_prev), *D_prev = room_in_panels(r.capacity, n_prev);
    k->delta(D_prev, D, T, A_prev, sigma, r.row, r.n_rows, r.capacity, n_prev, n);
    result_in_panels(D_prev, r, n_prev);
}

static void call_gradient(void) {
    const ptrdiff_t n_prev = between(1, MOST_UNITS), n = between(1, MOST_UNITS), w = k->panel_width;
    /* Now and then more than are added up at a time. */
    const ptrdiff_t N = between(1, MOST_ROWS) + (choose(8) == 0 ? 240 : 0);
    const rows r = {0, N, N + choose(4)};
    const ptrdiff_t p = choose((n + w - 1) / w), k_begin = choose((n_prev + w - 1) / w) * w;
    const ptrdiff_t k_end = choose(2) && k_begin + w < n_prev ? k_begin + w : n_prev;
    const ptrdiff_t width = width_of_panel(p * w, n);
    const ptrdiff_t is_last = (p + 2) * w >= n + lanes;
    const ptrdiff_t p_end = choose(2) && !is_last ? p + 2 : p + 1, rows_of_W = k_end - k_begin;
    const double scale = coefficient(), beta = coefficient();
    void *D = numbers_in_panels(r, n), *A_prev = numbers_in_panels(r, n_prev);
    void *dW = beta == 0 ? room((p_end - p) * rows_of_W * width)
                         : numbers((p_end - p) * rows_of_W * width);
    k->gradient(dW, D, A_prev, scale, beta, rows_of_W * width, p, p_end, k_begin, k_end, N,
                r.capacity, n_prev, n);
    for (ptrdiff_t q = 0; q < p_end - p; q++)
        for (ptrdiff_t h = 0; h < rows_of_W; h++) {
            const ptrdiff_t left = n - (p + q) * w, at = (q * rows_of_W + h) * width;
            result((char *)dW + at * size, left < width ? left : width);
        }
}

static void call_dropout(void) {
    const rows r = choose_rows();
    const ptrdiff_t n = between(1, MOST_UNITS), is_derivative = choose(2), unit = 2 * choose(3);
    const double rate = (double)choose(10) / 10;
    const uint64_t seed = random_bits(), step = random_bits(), first = random_bits() >> 1;
    const nncore_sigma sigma = choose_sigma(NNCORE_SOFTMAX);
    void *x = numbers_in_panels(r, n), *A = numbers_in_panels(r, n);
    if (is_derivative)
        k->dropout_derivative(x, A, sigma, rate, seed, step, 1, first, unit, k->panel_width, r.row,
                              r.n_rows, r.capacity, n);
    else
        k->dropout(x, rate, seed, step, 1, first, unit, k->panel_width, r.row, r.n_rows, r.capacity,
                   n);
    result_in_panels(x, r, n);
}

/* Those on row-major arrays. */

static void call_forward_rows(void) {
    const ptrdiff_t N = between(1, 16), n_prev = between(1, MOST_UNITS), n = between(1, MOST_UNITS);
    const nncore_sigma sigma = choose_sigma(NNCORE_SOFTMAX + 1);
    void *A_prev = numbers(N * n_prev), *W = numbers(n_prev * n), *b = numbers(n);
    void *A = room(N * n);
    k->forward_rows(A, A_prev, W, b, sigma, N, n_prev, n);
    result(A, N * n);
}

static void call_bias_activation(void) {
    const ptrdiff_t N = between(1, MOST_ROWS), n = between(1, MOST_UNITS) * between(1, 4);
    const nncore_sigma sigma = choose_sigma(NNCORE_SOFTMAX + 1);
    const int keeps = nncore_keeps_derivatives(sigma) && choose(4);
    void *A = numbers(N * n), *derivatives = room(N * n), *b = choose(2) ? numbers(n) : NULL;
    k->bias_activation(A, keeps ? derivatives : NULL, b, sigma, N, n);
    result(A, N * n), result(derivatives, keeps ? N * n : 0);
    if (sigma.kind != NNCORE_SOFTMAX) {
        k->times_derivative(A, keeps ? derivatives : A, sigma, N * n);
        result(A, N * n);
    }
}

/* Rows with the distance that `loss` allows. */
static void *choose_outputs(ptrdiff_t N, ptrdiff_t n, ptrdiff_t stride) {
    void *A = room(N * stride);
    for (ptrdiff_t i = 0; i < N * n; i++)
        set(A, i / n * stride + i % n, number());
    return A;
}

static void call_loss(void) {
    const ptrdiff_t N = between(1, MOST_ROWS), n = between(1, MOST_UNITS);
    const ptrdiff_t stride = choose(2) && n <= k->panel_width ? width_of_panel(0, n) : n;
    const enum nncore_loss loss = (enum nncore_loss)choose(NNCORE_CUSTOM + 1);
    const double threshold = coefficient();
    const nncore_sigma sigma =
        choose_sigma(loss == NNCORE_CUSTOM ? NNCORE_SOFTMAX + 1 : NNCORE_SOFTMAX);
    void *A = choose_outputs(N, n, stride), *Y = choose_outputs(N, n, stride);
    void *derivatives = choose_outputs(N, n, stride), *w = choose_weights(N);
    void *D = room(N * stride);
    value(k->loss(A, Y, w, loss, threshold, N, n, stride));
    k->output_delta(D, A, derivatives, Y, w, loss, threshold, sigma, N, n, stride);
    for (ptrdiff_t i = 0; i < N; i++)
        result((char *)D + i * stride * size, n);
    value(k->square_sum(A, N, n, stride)), value(k->finite(A, N, n, stride));
}

static void call_class_loss(void) {
    const ptrdiff_t N = between(1, MOST_ROWS), n = between(1, MOST_UNITS), first = choose(5);
    const ptrdiff_t stride = choose(2) && n <= k->panel_width ? width_of_panel(0, n) : n;
    const ptrdiff_t n_classes = first + N;
    const ptrdiff_t *order = choose_order(N, first, n_classes);
    ptrdiff_t *classes = bytes(n_classes * (ptrdiff_t)sizeof *classes);
    for (ptrdiff_t i = 0; i < n_classes; i++)
        classes[i] = (ptrdiff_t)(random_bits() % (uint64_t)n);
    void *A = choose_outputs(N, n, stride), *given = numbers(n_classes), *w = room(N);
    const int is_weighted = (int)choose(2);
    value(k->gather_weights(w, given, order, first, N)), result(w, N);
    void *D = room(N * stride);
    value(k->class_loss(A, classes, order, first, is_weighted ? w : NULL, N, stride));
    k->class_delta(D, A, classes, order, first, is_weighted ? w : NULL, N, n, stride);
    for (ptrdiff_t i = 0; i < N; i++)
        result((char *)D + i * stride * size, n);
}

static void call_column_sums(void) {
    const ptrdiff_t N = between(1, MOST_ROWS) + (choose(8) == 0 ? 1000 : 0);
    const ptrdiff_t n = between(1, MOST_UNITS);
    const double scale = coefficient(), beta = coefficient();
    void *D = numbers(N * n), *db = beta == 0 ? room(n) : numbers(n);
    k->column_sums(db, D, scale, beta, N, n);
    result(db, n);
}

static void call_update(void) {
    const ptrdiff_t count = between(1, 200), rule = choose(5), flags = choose(4);
    const double rate = coefficient(), decay = coefficient(), a = coefficient(), b = coefficient();
    const double epsilon = coefficient();
    void *w = numbers(count), *g = numbers(count);
    void *state_of[] = {numbers(count), numbers(count), numbers(count)};
    void *first = state_of[0], *second = state_of[1], *third = state_of[2];
    if (rule == 0)
        k->sgd(w, g, rate, decay, count);
    else if (rule == 1)
        k->momentum(w, first, g, rate, a, flags & 1, decay, flags >> 1, count);
    else if (rule == 2)
        k->adam(w, first, second, g, rate, a, b, epsilon, decay, count);
    else if (rule == 3)
        k->amsgrad(w, first, second, third, g, rate, a, b, epsilon, decay, count);
    else
        k->rmsprop(w, first, flags & 1 ? second : NULL, flags & 2 ? third : NULL, g, rate, a, b,
                   epsilon, decay, count);
    result(w, count);
    for (int i = 0; i < 3; i++)
        result(state_of[i], count);
}

static void call_vectors(void) {
    const ptrdiff_t count = between(1, 255) + choose(255);
    const double limit = coefficient();
    void *x = numbers(count), *out = room(count);
    k->map(out, x, (enum nncore_function)choose(2), count);
    result(out, count);
    value((double)k->first_beyond(x, limit, count));
    k->scale(x, coefficient(), count);
    result(x, count);
}

static void (*const calls[])(void) = {
    call_gather,       call_scatter,         call_transpose, call_forward,    call_delta,
    call_gradient,     call_dropout,         call_loss,      call_class_loss, call_column_sums,
    call_forward_rows, call_bias_activation, call_update,    call_vectors,
};

static uint64_t run(const uint8_t *data, size_t length, uint8_t before) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    choices = data, n_choices = length, byte = before;
    hash = state = UINT64_C(14695981039346656037);
    add_to_hash(data, (ptrdiff_t)length);
    state = hash;
    if (!nncore_choose(names[choose(3)]))
        nncore_choose("baseline");
    is_double = (int)choose(2);
    k = is_double ? nncore_f64 : nncore_f32;
    size = is_double ? sizeof(double) : sizeof(float), lanes = k->panel_width / 2;
    calls[choose(sizeof calls / sizeof *calls)]();
    while (n_blocks > 0)
        free(blocks[--n_blocks]);
    return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
    if (run(data, length, 0) != run(data, length, 0xff))
        abort();
    return 0;
}
