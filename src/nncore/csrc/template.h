/* The templates for one type, its table, and their macros taken back, so that the other type can
 * follow. */

#include "vector.h"

#include "elementary.h"

#include "panels.h"

#include "softmax.h"

#include "elementwise.h"

#include "tile.h"

#include "column.h"

#include "products.h"

#include "dropout.h"

static const nncore_kernels NAME(kernels) = {
    .name = NNCORE_TEXT(ISA),
    .panel = PANEL,
    .gather = NAME(gather),
    .scatter = NAME(scatter),
    .transpose = NAME(transpose),
    .forward = NAME(forward),
    .forward_plain = NAME(forward_plain),
    .delta = NAME(delta),
    .gradient = NAME(gradient),
    .bias_activation = NAME(bias_activation),
    .times_derivative = NAME(times_derivative),
    .dropout = NAME(dropout),
    .dropout_derivative = NAME(dropout_derivative),
    .one_hot = NAME(one_hot),
    .gather_weights = NAME(gather_weights),
    .loss = NAME(loss),
    .output_delta = NAME(output_delta),
    .column_sums = NAME(column_sums),
    .sgd = NAME(sgd),
    .momentum = NAME(momentum),
    .adam = NAME(adam),
    .square_sum = NAME(square_sum),
    .scale = NAME(scale),
    .map = NAME(map),
    .finite = NAME(finite),
    .first_beyond = NAME(first_beyond),
};

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
#undef SMALLEST
#undef V
#undef VB
#undef LANES
#undef INLINE
#undef SELECT
#undef FOR_EACH_VECTOR
#undef LOAD
#undef STORE
#undef PANEL
#undef HALF
#undef FULL_ROWS
#undef HALF_ROWS
#undef PLAIN_ROWS
#undef PLAIN_VECTORS
#undef FOR_EACH_FULL_ROWS
#undef FOR_EACH_HALF_ROWS
#undef UNROLL
#undef LINE
#undef INNER_BLOCK
#undef EXAMPLE_BLOCK
#undef GROUP
#undef MOST_COLUMNS
#undef DROPOUT_BLOCK
#undef DEFINE_DROPOUT
#undef LOW_HALVES
#undef HIGH_HALVES
#undef SHUFFLE
#undef NAME
#undef NNCORE_DOUBLE
