/* The products of a training step, phase by phase, on one thread: forward (1) and delta (4) over
 * spans of examples, gradient (5) with plain descent (6) and W's transpose over tiles of W.
 *
 * Compile with -DTABLE=nncore_avx2_f32, for instance, -DTABLE_SOURCE="avx2_f32.c" and the
 * directory csrc/ among the include directories. */

#include TABLE_SOURCE

#include <stdlib.h>
#include <time.h>

enum { MOST_LAYERS = 16 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Small numbers, so that products of products neither overflow nor become subnormal. */
static real *matrix(ptrdiff_t n_rows, ptrdiff_t n) {
    const ptrdiff_t count = n_rows * ((n + LANES - 1) / LANES * LANES);
    real *x = aligned_alloc(64, ((size_t)count * sizeof(real) + 63) / 64 * 64);
    for (ptrdiff_t i = 0; x && i < count; i++)
        x[i] = (real)((double)(i * 7919 % 101 - 50) / (25 * (double)n_rows));
    return x;
}

/* Adds the seconds of `steps` steps to forward, delta, gradient and transpose. A tile has
 * tile_panels panels of tile_panels times the panel's width inputs. Returns 0 without memory. */
int add_seconds(double seconds[4], int n_layers, const ptrdiff_t *sizes, ptrdiff_t batch_size,
                ptrdiff_t span, ptrdiff_t tile_panels, int steps) {
    const nncore_kernels *kernels = &TABLE;
    const nncore_sigma sigma = {.kind = NNCORE_IDENTITY};
    const ptrdiff_t width = kernels->panel_width, step = tile_panels * width;
    const ptrdiff_t capacity = batch_size % 8 ? batch_size : batch_size + 5;
    real *A[MOST_LAYERS + 1] = {0}, *delta[MOST_LAYERS + 1] = {0};
    real *W[MOST_LAYERS] = {0}, *T[MOST_LAYERS] = {0}, *b[MOST_LAYERS] = {0};
    int allocated = n_layers <= MOST_LAYERS;

    for (int l = 0; allocated && l <= n_layers; l++) {
        A[l] = matrix(capacity, sizes[l]), delta[l] = matrix(capacity, sizes[l]);
        allocated = A[l] && delta[l];
        if (allocated && l < n_layers) {
            W[l] = matrix(sizes[l], sizes[l + 1]), T[l] = matrix(sizes[l + 1], sizes[l]);
            b[l] = matrix(1, sizes[l + 1]);
            allocated = W[l] && T[l] && b[l];
        }
    }
    for (int i = 0; allocated && i < steps; i++) {
        for (ptrdiff_t row = 0; row < batch_size; row += span) {
            const ptrdiff_t n_rows = span < batch_size - row ? span : batch_size - row;
            double begin = now();
            for (int l = 0; l < n_layers; l++)
                kernels->forward(A[l + 1], NULL, A[l], 0, W[l], b[l], sigma, row, n_rows, capacity,
                                 sizes[l], sizes[l + 1]);
            seconds[0] += now() - begin, begin = now();
            for (int l = n_layers - 1; l > 0; l--)
                kernels->delta(delta[l], delta[l + 1], T[l], A[l], sigma, row, n_rows, capacity,
                               sizes[l], sizes[l + 1]);
            seconds[1] += now() - begin;
        }
        for (int l = 0; l < n_layers; l++)
            for (ptrdiff_t p = 0, p_end; p * width < sizes[l + 1]; p = p_end) {
                /* All panels of a tile are equally wide: the last one may be a tile of its own. */
                const ptrdiff_t panel = width_of_panel(p, sizes[l + 1]);
                for (p_end = p + 1; p_end < p + tile_panels && p_end * width < sizes[l + 1] &&
                                    width_of_panel(p_end, sizes[l + 1]) == panel;)
                    p_end++;
                for (ptrdiff_t k = 0; k < sizes[l]; k += step) {
                    const ptrdiff_t k_end = k + step < sizes[l] ? k + step : sizes[l];
                    double begin = now();
                    kernels->gradient(W[l] + p * width * sizes[l] + k * panel, delta[l + 1], A[l],
                                      -1e-20, 1, width * sizes[l], p, p_end, k, k_end, batch_size,
                                      capacity, sizes[l], sizes[l + 1]);
                    seconds[2] += now() - begin, begin = now();
                    for (ptrdiff_t q = p; l > 0 && q < p_end; q++)
                        kernels->transpose(T[l], W[l], q, k, k_end, sizes[l], sizes[l + 1]);
                    seconds[3] += now() - begin;
                }
            }
    }
    for (int l = 0; l <= MOST_LAYERS; l++) {
        free(A[l]), free(delta[l]);
        if (l < MOST_LAYERS)
            free(W[l]), free(T[l]), free(b[l]);
    }
    return allocated;
}
