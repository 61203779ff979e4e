/* A training step's gemm calls and nothing else.
 *
 * The calls come from C, through the function pointer that SciPy hands to compiled code, so that
 * no interpreter's time is in the measurement.
 */

typedef void (*gemm_function)(char *, char *, int *, int *, int *, void *, void *, int *, void *,
                              int *, void *, void *, int *);

/* C <- alpha op(A) op(B) + beta C, column-major, as BLAS has it. */
struct product {
    char trans_a, trans_b;
    int m, n, k, lda, ldb, ldc;
    void *alpha, *a, *b, *beta, *c;
};

void run_products(gemm_function gemm, struct product *products, int n_products, long steps) {
    for (long step = 0; step < steps; step++)
        for (struct product *p = products; p < products + n_products; p++)
            gemm(&p->trans_a, &p->trans_b, &p->m, &p->n, &p->k, p->alpha, p->a, &p->lda, p->b,
                 &p->ldb, p->beta, p->c, &p->ldc);
}
