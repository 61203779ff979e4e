/* The templates for one type, and their macros taken back, so that the other type can follow. */

#include "vector.h"

#include "elementary.h"

#include "elementwise.h"

#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef LN2_HIGH
#undef LN2_LOW
#undef X86_PREFIX
#undef X86_SUFFIX
#undef NEON_SUFFIX
#undef X86
#undef NEON
#undef FIRST
#undef real
#undef bits
#undef R
#undef EPSILON
#undef V
#undef VB
#undef LANES
#undef INLINE
#undef SELECT
#undef FOR_EACH_VECTOR
#undef LOAD
#undef STORE
#undef NAME
#undef NNCORE_DOUBLE
