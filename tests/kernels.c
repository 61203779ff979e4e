/* Compares the C core with the equations in double, one number after the other, on systems for
 * which there is no Python to run the tests. ./portability compiles and runs it:
 *
 *     cc -std=gnu11 -O3 -ffp-contract=off -fno-math-errno -Isrc/nncore/csrc \
 *         tests/kernels.c src/nncore/csrc/?*_f??.c src/nncore/csrc/dispatch.c -lm
 */

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nncore.h"
#include "team.h"

#define ROOM 16384
#define RATE 0.1
#define DECAY 0.01

static const nncore_kernels *k;
static int is_double, failures;
static long comparisons;

/* An array as the kernels take it: floats or doubles, with room for padding. */
typedef struct {
    _Alignas(64) char bytes[ROOM * sizeof(double)];
} array;

static double get(const array *x, ptrdiff_t i) {
    return is_double ? ((const double *)x->bytes)[i] : (double)((const float *)x->bytes)[i];
}

static void set(array *x, ptrdiff_t i, double value) {
    if (is_double)
        ((double *)x->bytes)[i] = value;
    else
        ((float *)x->bytes)[i] = (float)value;
}

static void *at(array *x, ptrdiff_t i) {
    return x->bytes + i * (ptrdiff_t)(is_double ? sizeof(double) : sizeof(float));
}

static double random_number(void) {
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 40) / (1 << 23) - 1; /* exact in float */
}

static void fill(array *x, ptrdiff_t count, double low, double high) {
    for (ptrdiff_t i = 0; i < count; i++)
        set(x, i, low + (high - low) * 0.5 * (1 + random_number()));
}

static void expect(double actual, double expected, const char *what, int kind) {
    const double epsilon = is_double ? DBL_EPSILON : FLT_EPSILON;
    comparisons++;
    if (fabs(actual - expected) <= 64 * epsilon * (1 + fabs(expected)))
        return;
    if (failures++ < 20)
        printf("  %s, %d: %.17g instead of %.17g\n", what, kind, actual, expected);
}

static void expect_all(const array *actual, const double *expected, ptrdiff_t count,
                       const char *what, int kind) {
    for (ptrdiff_t i = 0; i < count; i++)
        expect(get(actual, i), expected[i], what, kind);
}

/* sigma and sigma' of z. */
static double sigma_of(nncore_sigma sigma, double z, double *derivative) {
    const double s = 1 / (1 + exp(-z)), normal = 0.5 * (1 + erf(z / sqrt(2)));
    const double c = sqrt(2 / acos(-1)), t = tanh(c * (z + 0.044715 * z * z * z));
    double ignored, *d = derivative ? derivative : &ignored;
    switch (sigma.kind) {
    case NNCORE_SIGMOID:
        return *d = s * (1 - s), s;
    case NNCORE_TANH:
        return *d = 1 - tanh(z) * tanh(z), tanh(z);
    case NNCORE_RELU:
        return *d = z > 0, z > 0 ? z : 0;
    case NNCORE_LEAKY_RELU:
        return *d = z > 0 ? 1 : sigma.slope, z > 0 ? z : sigma.slope * z;
    case NNCORE_ELU:
        return *d = z > 0 ? 1 : sigma.slope * exp(z), z > 0 ? z : sigma.slope * expm1(z);
    case NNCORE_SOFTPLUS:
        return *d = s, log1p(exp(z));
    case NNCORE_EXPONENTIAL:
        return *d = exp(z), exp(z);
    case NNCORE_SILU:
        return *d = s + z * s * (1 - s), z * s;
    case NNCORE_GELU:
        return *d = normal + z * exp(-0.5 * z * z) / sqrt(2 * acos(-1)), z * normal;
    case NNCORE_GELU_TANH:
        *d = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * c * (1 + 3 * 0.044715 * z * z);
        return 0.5 * z * (1 + t);
    default:
        return *d = 1, z;
    }
}

static ptrdiff_t width_of_panel(ptrdiff_t p, ptrdiff_t n) {
    const ptrdiff_t half = k->panel_width / 2;
    return n == 1 ? 1 : n - p * k->panel_width <= half ? half : k->panel_width;
}

/* The panels of the row-major n_rows x n array x. */
static void pack(array *panels, const array *x, ptrdiff_t n_rows, ptrdiff_t n) {
    const ptrdiff_t size = is_double ? sizeof(double) : sizeof(float);
    k->gather(panels->bytes, x->bytes, is_double ? NNCORE_FLOAT64 : NNCORE_FLOAT32, n * size, size,
              NULL, n_rows, 0, k->panel_width, 0, n_rows, n_rows, n);
}

static void unpack(array *x, const array *panels, ptrdiff_t n_rows, ptrdiff_t n) {
    k->scatter(x->bytes, panels->bytes, 0, n_rows, n_rows, n);
}

/* Equations (1), (4) and (5) of a layer with n units and n_prev inputs, for N examples. */
static void check_layer(nncore_sigma sigma, ptrdiff_t N, ptrdiff_t n_prev, ptrdiff_t n) {
    static array X, W, b, D, X_panels, W_panels, b_panels, D_panels, A, derivatives, out, turned;
    static double expected[ROOM], slopes[ROOM];
    const double scale = 1 / sqrt((double)n_prev);
    fill(&X, N * n_prev, -2, 2), fill(&b, n, -1, 1), fill(&D, N * n, -1, 1);
    fill(&W, n_prev * n, -scale, scale);
    pack(&X_panels, &X, N, n_prev), pack(&W_panels, &W, n_prev, n);
    pack(&b_panels, &b, 1, n), pack(&D_panels, &D, N, n);

    for (ptrdiff_t i = 0; i < N; i++)
        for (ptrdiff_t j = 0; j < n; j++) {
            double z = get(&b, j);
            for (ptrdiff_t h = 0; h < n_prev; h++)
                z += get(&X, i * n_prev + h) * get(&W, h * n + j);
            expected[i * n + j] = sigma_of(sigma, z, &slopes[i * n + j]);
        }
    k->forward(A.bytes, derivatives.bytes, X_panels.bytes, 0, W_panels.bytes, b_panels.bytes, sigma,
               0, N, N, n_prev, n);
    unpack(&out, &A, N, n);
    expect_all(&out, expected, N * n, "forward", sigma.kind);
    if (nncore_keeps_derivatives(sigma)) {
        unpack(&out, &derivatives, N, n);
        expect_all(&out, slopes, N * n, "derivatives", sigma.kind);
    }
    k->forward_rows(out.bytes, X.bytes, W.bytes, b.bytes, sigma, N, n_prev, n);
    expect_all(&out, expected, N * n, "forward_rows", sigma.kind);

    /* The layer before has the same sigma, and X as its sums. */
    for (ptrdiff_t i = 0; i < N; i++)
        for (ptrdiff_t h = 0; h < n_prev; h++) {
            double slope, a = sigma_of(sigma, get(&X, i * n_prev + h), &slope), sum = 0;
            for (ptrdiff_t j = 0; j < n; j++)
                sum += get(&W, h * n + j) * get(&D, i * n + j);
            expected[i * n_prev + h] = sum * slope;
            set(&A, i * n_prev + h, nncore_keeps_derivatives(sigma) ? slope : a);
        }
    pack(&derivatives, &A, N, n_prev);
    for (ptrdiff_t p = 0; p * k->panel_width < n; p++)
        k->transpose(turned.bytes, W_panels.bytes, p, 0, n_prev, n_prev, n);
    k->delta(A.bytes, D_panels.bytes, turned.bytes, derivatives.bytes, sigma, 0, N, N, n_prev, n);
    unpack(&out, &A, N, n_prev);
    expect_all(&out, expected, N * n_prev, "delta", sigma.kind);

    /* W <- W / 2 + D X^T / N */
    for (ptrdiff_t h = 0; h < n_prev; h++)
        for (ptrdiff_t j = 0; j < n; j++) {
            double sum = 0;
            for (ptrdiff_t i = 0; i < N; i++)
                sum += get(&X, i * n_prev + h) * get(&D, i * n + j);
            expected[h * n + j] = 0.5 * get(&W, h * n + j) + sum / (double)N;
        }
    for (ptrdiff_t p = 0; p * k->panel_width < n; p++)
        k->gradient(at(&W_panels, p * k->panel_width * n_prev), D_panels.bytes, X_panels.bytes,
                    1.0 / (double)N, 0.5, width_of_panel(p, n) * n_prev, p, p + 1, 0, n_prev, N, N,
                    n_prev, n);
    unpack(&out, &W_panels, n_prev, n);
    expect_all(&out, expected, n_prev * n, "gradient", sigma.kind);
    for (ptrdiff_t j = 0; j < n; j++) {
        expected[j] = 0.5 * get(&b, j);
        for (ptrdiff_t i = 0; i < N; i++)
            expected[j] += get(&D, i * n + j) / (double)N;
    }
    k->column_sums(b.bytes, D.bytes, 1.0 / (double)N, 0.5, N, n);
    expect_all(&b, expected, n, "column_sums", 0);
}

static double loss_of(enum nncore_loss loss, double a, double y, double *delta) {
    const double r = a - y;
    *delta = r;
    switch (loss) {
    case NNCORE_BINARY_CROSS_ENTROPY:
        return -y * log(a) - (1 - y) * log(1 - a);
    case NNCORE_CROSS_ENTROPY:
        return -y * log(a);
    case NNCORE_POISSON:
        return y * log(y / a) - y + a;
    case NNCORE_ABSOLUTE_ERROR:
        *delta = r > 0 ? 1 : -1;
        return fabs(r);
    case NNCORE_HUBER:
        *delta = fmin(fmax(r, -0.25), 0.25);
        return fabs(r) <= 0.25 ? 0.5 * r * r : 0.25 * (fabs(r) - 0.125);
    default:
        return 0.5 * r * r;
    }
}

/* (2) and (3), for outputs whose sigma is the identity or follows from the loss. */
static void check_loss(enum nncore_loss loss, ptrdiff_t N, ptrdiff_t n) {
    static array A, Y, weights, out;
    static double expected[ROOM];
    const nncore_sigma identity = {NNCORE_IDENTITY, 0};
    double total = 0;
    fill(&A, N * n, 0.05, 0.95), fill(&Y, N * n, 0.05, 0.95), fill(&weights, N, 0.5, 2);
    for (ptrdiff_t i = 0; i < N * n; i++) {
        const double weight = get(&weights, i / n);
        total += weight * loss_of(loss, get(&A, i), get(&Y, i), &expected[i]);
        expected[i] *= weight;
    }
    expect(k->loss(A.bytes, Y.bytes, weights.bytes, loss, 0.25, N, n, n), total, "loss", loss);
    k->output_delta(out.bytes, A.bytes, A.bytes, Y.bytes, weights.bytes, loss, 0.25, identity, N, n,
                    n);
    expect_all(&out, expected, N * n, "output_delta", loss);
}

static void check_softmax(ptrdiff_t N, ptrdiff_t n) {
    static array Z, b, A;
    const nncore_sigma softmax = {NNCORE_SOFTMAX, 0};
    fill(&Z, N * n, -20, 20), fill(&b, n, -1, 1);
    memcpy(&A, &Z, sizeof A);
    k->bias_activation(A.bytes, NULL, b.bytes, softmax, N, n);
    for (ptrdiff_t i = 0; i < N; i++) {
        double total = 0;
        for (ptrdiff_t j = 0; j < n; j++)
            total += exp(get(&Z, i * n + j) + get(&b, j));
        for (ptrdiff_t j = 0; j < n; j++)
            expect(get(&A, i * n + j), exp(get(&Z, i * n + j) + get(&b, j)) / total, "softmax", 0);
    }
}

/* (6), and functions of arrays. */
static void check_vectors(ptrdiff_t count) {
    static array w, g, m, v, new_w, new_m, new_v;
    double squares = 0;
    fill(&w, count, -1, 1), fill(&g, count, -1, 1), fill(&m, count, -1, 1), fill(&v, count, 1, 2);
#define BEGIN                     \
    memcpy(&new_w, &w, sizeof w); \
    memcpy(&new_m, &m, sizeof m); \
    memcpy(&new_v, &v, sizeof v)
#define EACH                              \
    for (ptrdiff_t i = 0; i < count; i++) \
        for (double x = get(&w, i), d = get(&g, i) + DECAY * x, done = 0; !done; done = 1)

    BEGIN;
    k->sgd(new_w.bytes, g.bytes, RATE, DECAY, count);
    EACH expect(get(&new_w, i), x - RATE * d, "sgd", 0);
    BEGIN;
    k->momentum(new_w.bytes, new_m.bytes, g.bytes, RATE, 0.9, 0, DECAY, 0, count);
    EACH expect(get(&new_w, i), x + 0.9 * get(&m, i) - RATE * d, "momentum", 0);
    BEGIN;
    k->adam(new_w.bytes, new_m.bytes, new_v.bytes, g.bytes, RATE, 0.9, 0.99, 1e-3, DECAY, count);
    EACH {
        const double mean = 0.9 * get(&m, i) + 0.1 * d, square = 0.99 * get(&v, i) + 0.01 * d * d;
        expect(get(&new_w, i), x - RATE * mean / (sqrt(square) + 1e-3), "adam", 0);
    }
    BEGIN;
    k->rmsprop(new_w.bytes, new_v.bytes, NULL, NULL, g.bytes, RATE, 0.9, 0, 1e-3, DECAY, count);
    EACH {
        const double square = 0.9 * get(&v, i) + 0.1 * d * d;
        expect(get(&new_w, i), x - RATE * d / (sqrt(square) + 1e-3), "rmsprop", 0);
    }
    for (ptrdiff_t i = 0; i < count; i++)
        squares += get(&g, i) * get(&g, i);
    expect(k->square_sum(g.bytes, 1, count, count) / (double)count, squares / (double)count,
           "square_sum", 0);
    k->map(new_w.bytes, w.bytes, NNCORE_EXP, count);
    for (ptrdiff_t i = 0; i < count; i++)
        expect(get(&new_w, i), exp(get(&w, i)), "exp", 0);
    k->map(new_v.bytes, v.bytes, NNCORE_LOG, count);
    for (ptrdiff_t i = 0; i < count; i++)
        expect(get(&new_v, i), log(get(&v, i)), "log", 0);
    expect(k->finite(w.bytes, 1, count, count), 1, "finite", 0);
    set(&w, count - 1, NAN);
    expect(k->finite(w.bytes, 1, count, count), 0, "finite", 1);
    expect((double)k->first_beyond(w.bytes, 2, count), (double)(count - 1), "first_beyond", 0);
}

static void check_table(const nncore_kernels *table, int doubles) {
    static const ptrdiff_t shapes[][3] = {
        {1, 1, 1}, {1, 7, 13}, {5, 13, 1}, {9, 33, 40}, {37, 70, 65}};
    const int before = failures;
    k = table, is_double = doubles, comparisons = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const ptrdiff_t *shape = shapes[s];
        for (int kind = NNCORE_IDENTITY; kind < NNCORE_SOFTMAX; kind++) {
            const nncore_sigma sigma = {(enum nncore_activation)kind,
                                        kind == NNCORE_ELU ? 1 : 0.25};
            check_layer(sigma, shape[0], shape[1], shape[2]);
        }
        for (int loss = NNCORE_SQUARED_ERROR; loss < NNCORE_CUSTOM; loss++)
            check_loss((enum nncore_loss)loss, shape[0], shape[2]);
        check_softmax(shape[0], shape[2]);
        check_vectors(shape[0] * shape[2]);
    }
    printf("%s, %s: %ld comparisons, %d wrong\n", k->name, doubles ? "double" : "float",
           comparisons, failures - before);
}

/* What system.h and team.h have for each system, on one thread. */
static void check_system(void) {
    static nncore_team team;
    volatile double smallest = DBL_MIN;
    atomic_int asleep[1] = {0};
    const nncore_float_mode mode = nncore_flush_subnormals();
    const double begin = nncore_seconds();
    ptrdiff_t taken = 0, sum = 0;
    nncore_set_float_mode(mode);
    nncore_team_open(&team, asleep);
    nncore_team_begin(&team, 100);
    for (ptrdiff_t i; (i = nncore_team_take(&team)) >= 0; taken++, nncore_team_finish(&team))
        sum += i;
    nncore_pause(0), nncore_pause(NNCORE_SPINS);
    expect(smallest / 2 > 0, 1, "subnormal numbers", 0);
    expect((double)taken + (double)sum, 100 + 4950, "items of a team", 0);
    expect(nncore_team_done(&team), 1, "end of a phase", 0);
    expect(nncore_seconds() >= begin, 1, "clock", 0);
}

int main(void) {
    static const char *const names[] = {"baseline", "neon", "avx2", "avx512"};
    int chosen = 0;
    check_system();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (nncore_choose(names[i])) {
            check_table(nncore_f32, 0), check_table(nncore_f64, 1);
            chosen++;
        }
    if (chosen == 0)
        puts("no instruction set was chosen");
    return failures > 0 || chosen == 0;
}
