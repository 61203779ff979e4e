/* One instruction set's functions, for float and for double. The including file defines ISA,
 * VECTOR_BYTES and, where the compiler's baseline is exceeded, ISA_TARGET. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "nncore.h"

#if FLT_EVAL_METHOD != 0
#error "float arithmetic must be rounded to float; on 32-bit x86 compile with -msse2 -mfpmath=sse"
#endif

#define NNCORE_JOIN_(a, b, c) a##b##c
#define NNCORE_JOIN(a, b, c) NNCORE_JOIN_(a, b, c)
#define NNCORE_TEXT_(x) #x
#define NNCORE_TEXT(x) NNCORE_TEXT_(x)

#ifdef ISA_TARGET
#define NNCORE_PRAGMA_(x) _Pragma(#x)
#define NNCORE_PRAGMA(x) NNCORE_PRAGMA_(x)
#ifdef __clang__
NNCORE_PRAGMA(clang attribute push(__attribute__((target(ISA_TARGET))), apply_to = function))
#else
NNCORE_PRAGMA(GCC target(ISA_TARGET))
#endif
#endif

#if VECTOR_BYTES == 32
/* A window into it that begins `count` elements before the middle has `count` lanes on. */
static const int32_t nncore_tail_mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                             0,  0,  0,  0,  0,  0,  0,  0};
#endif

#define NNCORE_DOUBLE 0
#define NAME(x) x##_f32
#include "template.h"

#define NNCORE_DOUBLE 1
#define NAME(x) x##_f64
#include "template.h"

const nncore_kernels *const NNCORE_JOIN(nncore_, ISA, )[2] = {&kernels_f32, &kernels_f64};

#if defined(ISA_TARGET) && defined(__clang__)
#pragma clang attribute pop
#endif
