/* How many floating-point operations per second one core can do at most.
 *
 * Independent accumulators of the widest vectors that the processor has, each multiplied and added
 * to in every round: no load, no store, and more of them in flight than the units' latency times
 * their number. A fused multiply-add counts as two operations.
 *
 * Reads lines "float32 SECONDS" or "float64 SECONDS" and answers each with a line
 * "GFLOPS INSTRUCTION_SET", so that one process can be asked again and again.
 * To be compiled with -O3, which keeps the accumulators in registers once the loop is unrolled.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 4096 };
#define UNROLL _Pragma("GCC unroll 24")

/* With 0 < a < 1 every accumulator tends to b / (1 - a): no overflow, no denormal numbers. */
#define DEFINE_KERNEL(name, target, scalar, bytes, accumulators)                      \
    target static double name(double start) {                                         \
        typedef scalar vector __attribute__((vector_size(bytes)));                    \
        const vector a = (vector){0} + (scalar)0.75, b = (vector){0} + (scalar)start; \
        vector x[accumulators], sum = {0};                                            \
        for (int i = 0; i < accumulators; i++)                                        \
            x[i] = b + (scalar)i;                                                     \
        for (int round = 0; round < ROUNDS; round++)                                  \
            UNROLL for (int i = 0; i < accumulators; i++) x[i] = x[i] * a + b;        \
        for (int i = 0; i < accumulators; i++)                                        \
            sum += x[i];                                                              \
        return sum[0] + sum[bytes / sizeof(scalar) - 1];                              \
    }

#define DEFINE_KERNELS(suffix, target, bytes, accumulators)             \
    DEFINE_KERNEL(float32_##suffix, target, float, bytes, accumulators) \
    DEFINE_KERNEL(float64_##suffix, target, double, bytes, accumulators)

struct instruction_set {
    const char *name;
    int bytes, accumulators;
    double (*float32)(double), (*float64)(double);
};

/* As many accumulators as the registers hold beside a and b: 16 with AVX2 and SSE2, else 32. */
#if defined(__x86_64__)
DEFINE_KERNELS(avx512, __attribute__((target("avx512f"))), 64, 24)
DEFINE_KERNELS(avx2, __attribute__((target("avx2,fma"))), 32, 12)
DEFINE_KERNELS(sse2, , 16, 12)

/* The widest vectors, or those of a name of nncore's kernels that means narrower ones. */
static struct instruction_set choose(const char *kernels) {
    const int avx2 = strcmp(kernels, "avx2") == 0, baseline = strcmp(kernels, "baseline") == 0;

    if (!avx2 && !baseline && __builtin_cpu_supports("avx512f"))
        return (struct instruction_set){"AVX-512", 64, 24, float32_avx512, float64_avx512};
    if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct instruction_set){"AVX2", 32, 12, float32_avx2, float64_avx2};
    return (struct instruction_set){"SSE2", 16, 12, float32_sse2, float64_sse2};
}
#else
DEFINE_KERNELS(neon, , 16, 24)

static struct instruction_set choose(const char *kernels) {
    (void)kernels;
    return (struct instruction_set){"NEON", 16, 24, float32_neon, float64_neon};
}
#endif

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
    const struct instruction_set set = choose(argc > 1 ? argv[1] : "");
    char type[16];
    double seconds;
    volatile double sink;

    while (scanf("%15s %lf", type, &seconds) == 2) {
        const int is_float32 = strcmp(type, "float32") == 0;
        double (*const kernel)(double) = is_float32 ? set.float32 : set.float64;
        const double lanes = (double)set.bytes / (is_float32 ? 4 : 8);
        const double start = now();
        double elapsed = 0, calls = 0;

        for (; elapsed < seconds; elapsed = now() - start, calls++)
            sink = kernel(1 + calls);
        (void)sink;
        printf("%.3f %s\n", 2e-9 * set.accumulators * ROUNDS * lanes * calls / elapsed, set.name);
        fflush(stdout);
    }
    return 0;
}
