/* What every processor of the architecture has: SSE2 on x86-64, NEON on AArch64. */

#if defined(__aarch64__)
#define ISA neon
#else
#define ISA baseline
#endif
#define VECTOR_BYTES 16
#include "isa.h"
