/* As many fused multiply-adds as one core can do.
 *
 * Independent accumulators of the widest vectors of -march, each multiplied and added to in every
 * round: no load, no store, and more of them in flight than the units' latency times their number.
 * Compile with -DSCALAR=float or double and -O3, which keeps the accumulators in registers.
 */

/* As many accumulators as the registers hold beside a and b. */
#if defined(__AVX512F__)
enum { BYTES = 64, ACCUMULATORS = 24 };
#define NAME "AVX-512"
#elif defined(__AVX2__)
enum { BYTES = 32, ACCUMULATORS = 12 };
#define NAME "AVX2"
#elif defined(__x86_64__)
enum { BYTES = 16, ACCUMULATORS = 12 };
#define NAME "SSE2"
#else
enum { BYTES = 16, ACCUMULATORS = 24 };
#define NAME "NEON"
#endif

typedef SCALAR vector __attribute__((vector_size(BYTES)));
enum { ROUNDS = 4096, LANES = BYTES / sizeof(SCALAR) };

const char *instruction_set(void) { return NAME; }

/* Does at least so many operations, two per multiply-add; the sum keeps them from being removed. */
double run_operations(double operations) {
    /* With 0 < a < 1 every accumulator tends to b / (1 - a): no overflow, no subnormals. */
    const vector a = (vector){0} + (SCALAR)0.75, b = (vector){0} + (SCALAR)1;
    vector x[ACCUMULATORS], sum = {0};

    for (int i = 0; i < ACCUMULATORS; i++)
        x[i] = b + (SCALAR)i;
    for (double done = 0; done < operations; done += 2.0 * ROUNDS * ACCUMULATORS * LANES)
        for (int round = 0; round < ROUNDS; round++)
#pragma GCC unroll 24
            for (int i = 0; i < ACCUMULATORS; i++)
                x[i] = x[i] * a + b;
    for (int i = 0; i < ACCUMULATORS; i++)
        sum += x[i];
    return sum[0];
}
