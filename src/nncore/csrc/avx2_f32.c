#define ISA avx2
#define VECTOR_BYTES 32
#define REAL_BITS 32
#include "kernels.h"
