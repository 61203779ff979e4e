#define ISA baseline
#define VECTOR_BYTES 16
#define REAL_BITS 32
#include "kernels.h"
