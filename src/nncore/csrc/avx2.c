#ifdef __x86_64__
#define ISA avx2
#define ISA_TARGET "avx2,fma"
#define VECTOR_BYTES 32
#include "isa.h"
#endif
