#define ISA avx512
#define VECTOR_BYTES 64
#define REAL_BITS 64
#include "kernels.h"
