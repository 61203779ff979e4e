/* exp, expm1, log, log1p, sigmoid, tanh and softplus of a vector: branch-free, so that every value
 * takes the same time.
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

/* e^x for x <= 0. 2^n is computed `raised` binary orders too large, where it is normal; the last
 * factor takes them back and may round to a subnormal number. */
INLINE V exp_nonpositive(V x) {
    const real raised = FOR_TYPE(64, 512);
    x = at_least(x, broadcast(FOR_TYPE(-104, -746)));
    VB n;
    const V r = reduce(x, EXPONENT_BIAS + raised, &n);
    const V p = 1 + multiply_add(r * r, exp_tail(r), r);
    return p * power_of_two(n) * FOR_TYPE(0x1p-64f, 0x1p-512);
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
