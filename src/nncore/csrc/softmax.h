/* Softmax: each row of Z becomes e^z over its sum; subtracting the row's largest z first keeps exp
 * from overflowing. A template, see vector.h. */

#define MOST_COLUMNS (4 * LANES)

/* Up to LANES rows of up to MOST_COLUMNS, each in a lane of its own. */
INLINE void NAME(softmax_lanes)(real *A, ptrdiff_t n_rows, ptrdiff_t n) {
    V columns[MOST_COLUMNS], largest = NAME(all)(-INFINITY), total = {0};
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        for (ptrdiff_t r = 0; r < LANES; r++)
            columns[j + r] = r < n_rows ? LOAD(A + r * n + j, n - j) : (V){0};
        NAME(transpose_square)(columns + j);
    }
    for (ptrdiff_t j = 0; j < n; j++)
        largest = SELECT(largest > columns[j], largest, columns[j]);
    for (ptrdiff_t j = 0; j < n; j++)
        total += columns[j] = NAME(exp)(columns[j] - largest);
    for (ptrdiff_t j = 0; j < n; j++)
        columns[j] /= total;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        NAME(transpose_square)(columns + j);
        for (ptrdiff_t r = 0; r < LANES && r < n_rows; r++)
            STORE(A + r * n + j, columns[j + r], n - j);
    }
}

/* A long row. */
static void NAME(softmax_row)(real *A, ptrdiff_t n) {
    V largest = NAME(all)(-INFINITY);
    FOR_EACH_VECTOR (j, count, n) {
        V z = LOAD(A + j, count);
        if (count < LANES)
            z = SELECT(NAME(first_lanes)(count), z, NAME(all)(-INFINITY));
        largest = SELECT(largest > z, largest, z);
    }
    real top = largest[0];
    for (ptrdiff_t k = 1; k < LANES; k++)
        top = top > largest[k] ? top : largest[k];

    V total = {0};
    FOR_EACH_VECTOR (j, count, n) {
        const V e = NAME(exp)(LOAD(A + j, count) - top);
        STORE(A + j, e, count);
        total += count >= LANES ? e : (V)((VB)e & NAME(first_lanes)(count));
    }
    const real sum = NAME(sum)(total);
    FOR_EACH_VECTOR (j, count, n)
        STORE(A + j, LOAD(A + j, count) / sum, count);
}

static void NAME(softmax)(real *A, ptrdiff_t n_rows, ptrdiff_t n) {
    if (n > MOST_COLUMNS)
        for (; n_rows > 0; n_rows--, A += n)
            NAME(softmax_row)(A, n);
    for (; n_rows >= LANES; n_rows -= LANES, A += LANES * n)
        NAME(softmax_lanes)(A, LANES, n);
    if (n_rows > 0)
        NAME(softmax_lanes)(A, n_rows, n);
}
