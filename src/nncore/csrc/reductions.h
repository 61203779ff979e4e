/* Sums and searches over arrays; scaling and elementary functions of arrays. */

#pragma once

#include "elementary.h"
#include "vector.h"

/* Float sums are cut into blocks, and most are continued in double, because a long sum loses terms
 * that are small beside it. SUM_BLOCK is 16 terms per lane. */
#define SUM_BLOCK (16 * LANES)
#define SQUARE_SUM_BLOCK 256
#define COLUMN_SUM_BLOCK 1024
#define SEARCH_BLOCK (16 * LANES)

INLINE double vector_sum(const real *x, ptrdiff_t count) {
    double total = 0;
    for (ptrdiff_t block = 0; block < count; block += SUM_BLOCK) {
        V part = {0};
        FOR_EACH_VECTOR (j, left, count - block < SUM_BLOCK ? count - block : SUM_BLOCK)
            part += LOAD(x + block + j, left);
        total += (double)lane_sum(part);
    }
    return total;
}

static void column_sums(void *db_, const void *delta_, double scale, double beta, ptrdiff_t n_rows,
                        ptrdiff_t n) {
    real *db = db_;
    const real *delta = delta_;
    if (n == 1) {
        double sum = scale * vector_sum(delta, n_rows);
        *db = (real)(beta == 0 ? sum : sum + beta * *db);
        return;
    }
    FOR_EACH_VECTOR (j, count, n) {
        V sum = {0};
        for (ptrdiff_t block = 0; block < n_rows; block += COLUMN_SUM_BLOCK) {
            const ptrdiff_t end =
                n_rows - block < COLUMN_SUM_BLOCK ? n_rows : block + COLUMN_SUM_BLOCK;
            V parts[PARTIAL_SUMS] = {{0}};
            ptrdiff_t i = block;
            for (; i + PARTIAL_SUMS <= end; i += PARTIAL_SUMS)
                for (ptrdiff_t part = 0; part < PARTIAL_SUMS; part++)
                    parts[part] += LOAD(delta + (i + part) * n + j, count);
            for (; i < end; i++)
                parts[0] += LOAD(delta + i * n + j, count);
            sum += add_parts(parts);
        }
        sum *= (real)scale;
        if (beta != 0) /* otherwise nothing of db's former content may enter, NaN included */
            sum += (real)beta * LOAD(db + j, count);
        STORE(db + j, sum, count);
    }
}

static double square_sum(const void *x_, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    const real *x = x_;
    if (stride == n) /* one long row */
        n *= n_rows, n_rows = 1;
    double total = 0;
    for (ptrdiff_t i = 0; i < n_rows; i++, x += stride)
        for (ptrdiff_t block = 0; block < n; block += SQUARE_SUM_BLOCK) {
            const ptrdiff_t length = n - block < SQUARE_SUM_BLOCK ? n - block : SQUARE_SUM_BLOCK;
            V part = {0};
            FOR_EACH_VECTOR (j, left, length) {
                const V value = LOAD(x + block + j, left);
                part = multiply_add(value, value, part);
            }
            total += (double)lane_sum(part);
        }
    return total;
}

static void scale(void *x_, double factor, ptrdiff_t count) {
    real *x = x_;
    FOR_EACH_VECTOR (i, left, count)
        STORE(x + i, (real)factor * LOAD(x + i, left), left);
}

static void map(void *out_, const void *x_, enum nncore_function function, ptrdiff_t count) {
    real *out = out_;
    const real *x = x_;
    FOR_EACH_VECTOR (i, left, count) {
        const V value = LOAD(x + i, left);
        STORE(out + i, function == NNCORE_EXP ? vector_exp(value) : vector_log(value), left);
    }
}

/* 0 times a NaN or an infinity is NaN, and stays NaN in a sum. */
static int is_finite(const void *x_, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    const real *x = x_;
    if (stride == n) /* one long row */
        n *= n_rows, n_rows = 1;
    const V zero = {0};
    V sums[PARTIAL_SUMS] = {{0}};
    for (ptrdiff_t row = 0; row < n_rows; row++, x += stride) {
        ptrdiff_t i = 0;
        for (; i + PARTIAL_SUMS * LANES <= n; i += PARTIAL_SUMS * LANES)
            for (ptrdiff_t part = 0; part < PARTIAL_SUMS; part++)
                sums[part] = multiply_add(load(x + i + part * LANES), zero, sums[part]);
        FOR_EACH_VECTOR (j, left, n - i)
            sums[0] = multiply_add(LOAD(x + i + j, left), zero, sums[0]);
    }
    const VB total = (VB)add_parts(sums);
    bits any = 0; /* of the lanes; their sum would be a chain of additions */
    for (ptrdiff_t j = 0; j < LANES; j++)
        any |= total[j];
    return (bits)(any << 1) == 0;
}

static ptrdiff_t first_beyond(const void *x_, double limit, ptrdiff_t count) {
    const real *x = x_;
    const V most = broadcast((real)limit);
    ptrdiff_t i = 0;
    /* One test per block; then the element itself is searched in the block that has it. */
    for (; i + SEARCH_BLOCK <= count; i += SEARCH_BLOCK) {
        VB within = broadcast_bits(~(bits)0);
        for (ptrdiff_t j = 0; j < SEARCH_BLOCK; j += LANES)
            within &= (VB)(absolute(load(x + i + j)) <= most); /* false for NaN */
        bits every_lane = ~(bits)0;
        for (ptrdiff_t j = 0; j < LANES; j++)
            every_lane &= within[j];
        if (!every_lane)
            break;
    }
    while (i < count && x[i] <= (real)limit && x[i] >= -(real)limit)
        i++;
    return i;
}
