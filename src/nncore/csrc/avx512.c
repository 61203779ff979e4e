#include "nncore.h"

#ifdef NNCORE_X86
#define ISA avx512
#define ISA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"
#define VECTOR_BYTES 64
#include "isa.h"
#endif
