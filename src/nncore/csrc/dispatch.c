/* Chooses the tables by name, if the processor and the system support the instruction set. */

#include <string.h>

#include "nncore.h"

extern const nncore_kernels nncore_baseline_f32, nncore_baseline_f64;
#ifdef __x86_64__
extern const nncore_kernels nncore_avx2_f32, nncore_avx2_f64, nncore_avx512_f32, nncore_avx512_f64;
#endif

const nncore_kernels *nncore_f32, *nncore_f64;

#if defined(__clang__)
const char nncore_compiler[] = "Clang " __clang_version__;
#else
const char nncore_compiler[] = "GCC " __VERSION__;
#endif

int nncore_supports(const char *name) {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (strcmp(name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return strcmp(name, nncore_baseline_f32.name) == 0;
}

int nncore_choose(const char *name) {
    if (!nncore_supports(name))
        return 0;
    nncore_f32 = &nncore_baseline_f32, nncore_f64 = &nncore_baseline_f64;
#ifdef __x86_64__
    if (strcmp(name, "avx512") == 0)
        nncore_f32 = &nncore_avx512_f32, nncore_f64 = &nncore_avx512_f64;
    if (strcmp(name, "avx2") == 0)
        nncore_f32 = &nncore_avx2_f32, nncore_f64 = &nncore_avx2_f64;
#endif
    return 1;
}
