/* exp, expm1, log, log1p, sigmoid, tanh, softplus, SiLU and GELU of a vector: branch-free, so that
 * every value takes the same time.
 *
 * Argument reduction as in W. J. Cody and W. Waite, Software Manual for the Elementary Functions
 * (1980); the polynomials are near-minimax (Chebyshev interpolation in 200 bits).
 * In every selection a NaN takes the side that keeps it. */

#pragma once

#include "vector.h"

/* ln 2 in two parts; n times the first is exact for every exponent n. */
#define LN2_HIGH FOR_TYPE(0x1.63p-1f, 0x1.62e42fee00000p-1)
#define LN2_LOW FOR_TYPE(-0x1.bd0106p-13f, 0x1.a39ef35793c76p-33)

/* Return r with x = n ln 2 + r, |r| <= ln(2)/2 and n an integer. Adding 1.5 * 2^MANTISSA_BITS
 * rounds to an integer and leaves it, n + offset, in the low bits. */
INLINE V reduce(V x, real offset, VB *n) {
    const V magic = broadcast(R(1.5) * (real)((bits)1 << MANTISSA_BITS) + offset);
    const V shifted = multiply_add(x, broadcast(R(1.44269504088896340736)), magic);
    const V n_real = shifted - magic;
    *n = (VB)shifted;
    return multiply_add(n_real, broadcast(-LN2_LOW), multiply_add(n_real, broadcast(-LN2_HIGH), x));
}

/* (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, to 8e-9 in float and 2e-17 in double. */
INLINE V exp_tail(V r) {
#if REAL_BITS == 64
    static const double c[] = {2.5100385495510319e-8, 2.7620088445409748e-7,  2.7557268459997065e-6,
                               2.4801521295954375e-5, 0.00019841269863053617, 0.0013888888917213717,
                               0.0083333333333300618, 0.041666666666624128,   0.16666666666666667,
                               0.5000000000000001};
#else
    static const float c[] = {0.0013926184f, 0.0083631791f, 0.041666555f, 0.16666577f, 0.5f};
#endif
    V p = broadcast(c[0]);
    for (size_t k = 1; k < sizeof c / sizeof c[0]; k++)
        p = multiply_add(p, r, broadcast(c[k]));
    return p;
}

/* 2 atanh(s) - 2 s for |s| <= (sqrt(2) - 1)/(sqrt(2) + 1), to 6e-9 and 1e-17 of s^3. */
INLINE V atanh_tail(V s) {
#if REAL_BITS == 64
    static const double c[] = {0.14616585424888622, 0.15331710618210772, 0.18182889455674946,
                               0.22222211130259877, 0.28571428626003269, 0.39999999999899443,
                               0.66666666666666697};
#else
    static const float c[] = {0.29580053f, 0.39988778f, 0.66666685f};
#endif
    const V t = s * s;
    V p = broadcast(c[0]);
    for (size_t k = 1; k < sizeof c / sizeof c[0]; k++)
        p = multiply_add(p, t, broadcast(c[k]));
    return s * t * p;
}

/* 2^n, from n plus the bias; the shift drops the bits that `reduce` leaves above the exponent. */
INLINE V power_of_two(VB biased) { return (V)(biased << MANTISSA_BITS); }

INLINE V vector_exp(V x) {
    /* Beyond these bounds the result is 0 or infinity; inside, both halves of 2^n are normal. */
    x = at_least(x, broadcast(FOR_TYPE(-104, -746)));
    x = at_most(x, broadcast(FOR_TYPE(89, 710)));
    VB n;
    const V r = reduce(x, 2 * EXPONENT_BIAS, &n);
    const V p = 1 + multiply_add(r * r, exp_tail(r), r);
    n &= 4 * EXPONENT_BIAS + 3;
    const VB half = n >> 1;
    return p * power_of_two(half) * power_of_two(n - half);
}

/* e^x for x < 0 is computed these binary orders too large, where it is normal; the factor takes
 * them back and may round to a subnormal number. */
#define RAISED FOR_TYPE(64, 512)
#define LOWERED FOR_TYPE(0x1p-64f, 0x1p-512)

/* 2^RAISED e^(x + low) for -130 <= x <= 0, in double -1060 <= x <= 0, and |low| <= 0.12. */
INLINE V raised_exp(V x, const V *low) {
    VB n;
    V r = reduce(x, EXPONENT_BIAS + RAISED, &n);
    if (low)
        r += *low;
    return (1 + multiply_add(r * r, exp_tail(r), r)) * power_of_two(n);
}

/* e^x for x <= 0. */
INLINE V exp_nonpositive(V x) {
    return raised_exp(at_least(x, broadcast(FOR_TYPE(-104, -746))), NULL) * LOWERED;
}

/* e^x - 1 for x <= 0. */
INLINE V expm1_nonpositive(V x) {
    x = at_least(x, broadcast(FOR_TYPE(-30, -50))); /* below, the result rounds to -1 */
    VB n;
    const V r = reduce(x, EXPONENT_BIAS, &n);
    const V p = multiply_add(r * r, exp_tail(r), r);
    const V scale = power_of_two(n);
    return multiply_add(scale, p, scale - 1);
}

/* ln x for normal x > 0; infinity gives NaN. */
INLINE V vector_log(V x) {
    const bits sqrt_half = FOR_TYPE(0x3f3504f3u, 0x3fe6a09e667f3bcdu);
    /* Biased by 2 * EXPONENT_BIAS so that the shift sees no sign. */
    const VB biased = (VB)x - sqrt_half + ((bits)(2 * EXPONENT_BIAS) << MANTISSA_BITS);
    const VB n = (biased >> MANTISSA_BITS) - 2 * EXPONENT_BIAS;
    const V magic = broadcast(R(1.5) * (real)((bits)1 << MANTISSA_BITS));
    const V n_real = (V)((VB)magic + n) - magic;
    const V m = (V)((VB)x - (n << MANTISSA_BITS));
    const V s = (m - 1) / (m + 1);
    const V fraction = multiply_add(n_real, broadcast(LN2_LOW), 2 * s + atanh_tail(s));
    return multiply_add(n_real, broadcast(LN2_HIGH), fraction) + (x - x);
}

/* ln(1 + x) for 0 <= x <= 1. */
INLINE V log1p_unit(V x) {
    const VB large = (VB)(x > R(0.41421356237309504880));
    const V f = SELECT(large, (x - 1) * R(0.5), x);
    const V s = f / (2 + f);
    const V ln2 = (V)(large & (VB)broadcast(R(0.69314718055994530942)));
    return ln2 + (2 * s + atanh_tail(s));
}

/* 1 / (1 + e^-z), where e^-|z| cannot overflow. `lost`, the exact rounding error of 1 + e, is
 * worth half a unit in the last place; it is corrected to first order, 1/(1 + e) as 1 - e/2. */
INLINE V vector_sigmoid(V z) {
    const V e = exp_nonpositive(negative_absolute(z));
    const V denominator = 1 + e;
    const V lost = e - (denominator - 1);
    const V y = SELECT(z < 0, e, broadcast(1)) / denominator;
    return multiply_add(-y, lost * multiply_add(e, broadcast(R(-0.5)), broadcast(1)), y);
}

INLINE V vector_tanh(V z) {
    const V t = expm1_nonpositive(2 * negative_absolute(z));
    return copy_sign(-t / (2 + t), z);
}

INLINE V vector_softplus(V z) {
    const V positive = at_least(z, broadcast(0));
    return positive + log1p_unit(exp_nonpositive(negative_absolute(z)));
}

/* z within +-limit. */
INLINE V limited(V z, real limit) { return copy_sign(at_most(absolute(z), broadcast(limit)), z); }

/* z sigmoid(w) and its derivative, where w has the sign of z and the derivative w'. Beyond
 * +-limit the one is 0 or z, the other 0 or 1; w and w' are those of z within it. */
INLINE V times_sigmoid(V z, real limit, V w, V w_derivative, V *derivative) {
    const V e = raised_exp(negative_absolute(w), NULL), small = e * LOWERED;
    const V inverse = 1 / (1 + small), inside = limited(z, limit);
    const VB negative = (VB)(w < 0);
    const V unit = SELECT(negative, broadcast(LOWERED), broadcast(1));
    const V sigmoid = SELECT(negative, e, broadcast(1)) * inverse; /* raised if negative */
    const V rest = SELECT(negative, broadcast(1), small) * inverse;
    *derivative = multiply_add(rest * inside, w_derivative, broadcast(1)) * (sigmoid * unit);
    return SELECT(negative, inside, z) * sigmoid * unit;
}

/* D. Hendrycks, K. Gimpel, Gaussian error linear units (2016): SiLU, z sigmoid(z). */
INLINE V vector_silu(V z, V *derivative) {
    const real limit = FOR_TYPE(110, 754);
    return times_sigmoid(z, limit, limited(z, limit), broadcast(1), derivative);
}

/* GELU with the normal distribution approximated by a tanh: z sigmoid(w), where
 * w = 2 sqrt(2/pi) (z + 0.044715 z^3). Its relative error grows as that of w does, by |w|. */
INLINE V vector_gelu_tanh(V z, V *derivative) {
    const real limit = FOR_TYPE(11.5, 22), c = R(1.5957691216057308), c_3 = R(0.071354816272600247);
    const V inside = limited(z, limit), square = inside * inside;
    const V w = inside * multiply_add(broadcast(c_3), square, broadcast(c));
    return times_sigmoid(z, limit, w, multiply_add(broadcast(3 * c_3), square, broadcast(c)),
                         derivative);
}

/* 2^RAISED Phi(-x), the tail of the normal distribution, for 0 <= x <= 39, in float 15; `bell`
 * becomes 2^RAISED e^(-x^2 / 2). Their quotient times x + 3 is a polynomial in
 * t = (x - 3)/(x + 3), to 2e-9 and 4e-17. After M. M. Shepherd, J. G. Laframboise, Chebyshev
 * approximation of (1 + 2x) exp(x^2) erfc x (1981). */
INLINE V raised_tail(V x, V *bell) {
#if REAL_BITS == 64
    static const double c[] = {
        -4.7870720959922925e-9, -1.3135933402247276e-8, 1.657033137527329e-8,
        9.487232199276363e-8,   5.684486037424846e-8,   -2.7328560573942945e-7,
        -6.074709787998142e-7,  8.436576374559394e-9,   2.2657541545091404e-6,
        3.639661016328273e-6,   -3.5216120993913375e-6, -2.0688992367067843e-5,
        -1.3244941486425609e-5, 7.881264329401229e-5,   0.00015439426231460667,
        -0.0002565753435054921, -0.0010458285990398509, 0.0010275922589893913,
        0.006972621238880609,   -0.010462867023309811,  -0.04726302514292172,
        0.23001771997460368,    -0.50933198191749,      0.729083690133373};
#else
    static const float c[] = {5.5491873e-05f, 0.00013332395f, -0.0002447093f, -0.0010344766f,
                              0.0010241573f,  0.0069699204f,  -0.010462289f,  -0.04726276f,
                              0.23001768f,    -0.509332f,     0.7290837f};
#endif
    const V inverse = 1 / (x + 3), t = (x - 3) * inverse;
    V p = broadcast(c[0]);
    for (size_t k = 1; k < sizeof c / sizeof c[0]; k++)
        p = multiply_add(p, t, broadcast(c[k]));
    /* x^2 = high^2 + (x - high)(x + high); high has so few digits that its square is exact. */
    const V high = (V)((VB)x & ~broadcast_bits(((bits)1 << FOR_TYPE(12, 27)) - 1));
    const V low = R(-0.5) * (x - high) * (x + high);
    *bell = raised_exp(R(-0.5) * high * high, &low);
    return p * inverse * *bell;
}

/* Hendrycks and Gimpel's GELU, z Phi(z). */
INLINE V vector_gelu(V z, V *derivative) {
    V bell;
    const V x = at_most(absolute(z), broadcast(FOR_TYPE(15, 39)));
    const V tail = raised_tail(x, &bell);
    const VB negative = (VB)(z < 0);
    const V slope = multiply_add(x * bell, broadcast(R(-0.39894228040143268)), tail) * LOWERED;
    *derivative = SELECT(negative, slope, 1 - slope);
    return SELECT(negative, -x * tail * LOWERED, z * (1 - tail * LOWERED));
}
