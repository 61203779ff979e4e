#ifdef __x86_64__
#define ISA avx512
#ifdef __clang__
#define ISA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,fma"
#else
#define ISA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"
#endif
#define VECTOR_BYTES 64
#include "isa.h"
#endif
