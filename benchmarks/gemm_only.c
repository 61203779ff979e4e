/* The matrix products of training steps and nothing else, through SciPy's gemm.
 *
 * Column-major, as BLAS has it: W[l] is sizes[l + 1] x sizes[l], A[l] and delta[l] sizes[l] x N.
 */

typedef void (*gemm_function)(char *, char *, int *, int *, int *, void *, void *, int *, void *,
                              int *, void *, void *, int *);

/* dW <- alpha delta A^T + beta dW, which is the update by plain SGD where dW is W. */
void run_steps(gemm_function gemm, int n_layers, int *sizes, int N, void **W, void **A,
               void **delta, void **dW, void **scalars, long steps) {
    void *one = scalars[0], *zero = scalars[1], *alpha = scalars[2], *beta = scalars[3];

    for (long step = 0; step < steps; step++) {
        for (int l = 0; l < n_layers; l++) {
            int *n = &sizes[l], *m = &sizes[l + 1];
            gemm("N", "N", m, &N, n, one, W[l], m, A[l], n, zero, A[l + 1], m);
        }
        for (int l = n_layers - 1; l >= 0; l--) {
            int *n = &sizes[l], *m = &sizes[l + 1];
            if (l > 0)
                gemm("T", "N", n, &N, m, one, W[l], m, delta[l + 1], m, zero, delta[l], n);
            gemm("N", "T", m, n, &N, alpha, delta[l + 1], m, A[l], n, beta, dW[l], m);
        }
    }
}
