/* The kernels of one instruction set for one type, and their table, nncore_avx2_f64 for instance.
 * The including file defines ISA, VECTOR_BYTES and REAL_BITS. */

#pragma once

#if VECTOR_BYTES <= 16 || defined(__x86_64__) /* nothing else has AVX */

#include "activations.h"
#include "dropout.h"
#include "forward_rows.h"
#include "losses.h"
#include "nncore.h"
#include "panels.h"
#include "products.h"
#include "reductions.h"
#include "updates.h"
#include "vector.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#ifdef __aarch64__
#define NAME "neon" /* which every such processor has */
#else
#define NAME TEXT(ISA)
#endif

const nncore_kernels JOIN(nncore_, ISA, _f, REAL_BITS) = {
    .name = NAME,
    .panel_width = PANEL_WIDTH,
    .gather = gather,
    .scatter = scatter,
    .transpose = transpose,
    .forward = forward,
    .delta = delta,
    .gradient = gradient,
    .forward_rows = forward_rows,
    .bias_activation = bias_activation,
    .times_derivative = times_derivative,
    .dropout = dropout,
    .dropout_derivative = dropout_derivative,
    .gather_weights = gather_weights,
    .loss = loss,
    .output_delta = output_delta,
    .class_loss = class_loss,
    .class_delta = class_delta,
    .column_sums = column_sums,
    .sgd = sgd,
    .momentum = momentum,
    .adam = adam,
    .amsgrad = amsgrad,
    .rmsprop = rmsprop,
    .square_sum = square_sum,
    .scale = scale,
    .map = map,
    .finite = is_finite,
    .first_beyond = first_beyond,
};

#if defined(__clang__) && VECTOR_BYTES >= 32
#pragma clang attribute pop
#endif

#endif
