/* Chooses, once, the table for the widest vectors that the processor and the system support. */

#include "nncore.h"

extern const nncore_elementwise *const nncore_baseline_f32, *const nncore_baseline_f64;
#ifdef NNCORE_X86
extern const nncore_elementwise *const nncore_avx2_f32, *const nncore_avx2_f64;
extern const nncore_elementwise *const nncore_avx512_f32, *const nncore_avx512_f64;
#endif

const nncore_elementwise *nncore_f32, *nncore_f64;

void nncore_choose(void) {
    nncore_f32 = nncore_baseline_f32;
    nncore_f64 = nncore_baseline_f64;
#ifdef NNCORE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        nncore_f32 = nncore_avx2_f32;
        nncore_f64 = nncore_avx2_f64;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        nncore_f32 = nncore_avx512_f32;
        nncore_f64 = nncore_avx512_f64;
    }
#endif
}
