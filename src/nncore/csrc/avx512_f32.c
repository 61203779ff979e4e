#define ISA avx512
#define VECTOR_BYTES 64
#define REAL_BITS 32
#include "kernels.h"
