/* Chooses the tables by name, if the processor and the system support the instruction set. */

#include <string.h>

#include "nncore.h"

typedef const nncore_kernels *const tables[2]; /* for float and for double */

#if defined(__aarch64__)
#define BASELINE nncore_neon
#else
#define BASELINE nncore_baseline
#endif
extern tables BASELINE;
#ifdef __x86_64__
extern tables nncore_avx2, nncore_avx512;
#endif

const nncore_kernels *nncore_f32, *nncore_f64;

/* The tables of that name, or NULL. */
static const nncore_kernels *const *find(const char *name) {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return nncore_avx512;
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return nncore_avx2;
#endif
    return strcmp(name, BASELINE[0]->name) == 0 ? BASELINE : NULL;
}

int nncore_supports(const char *name) { return find(name) != NULL; }

int nncore_choose(const char *name) {
    const nncore_kernels *const *found = find(name);
    if (!found)
        return 0;
    nncore_f32 = found[0];
    nncore_f64 = found[1];
    return 1;
}
