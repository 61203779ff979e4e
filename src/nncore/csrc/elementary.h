/* exp, expm1, log, log1p, sigma, tanh and softplus on a vector: branch-free, so that a lane costs
 * the same whatever its value. A template, see vector.h.
 *
 * Argument reduction as in W. J. Cody and W. Waite, Software Manual for the Elementary Functions
 * (1980); the polynomials are near-minimax (Chebyshev interpolation in 200 bits).
 * In every selection a NaN takes the side that keeps it. */

/* ln 2 in two parts; n times the first is exact for every exponent n. */
#if NNCORE_DOUBLE
#define LN2_HIGH 0x1.62e42fee00000p-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#else
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f
#endif

/* x = n ln 2 + r with |r| <= ln(2)/2, n an integer; r is returned. Adding 1.5 * 2^MANTISSA_BITS
 * rounds to an integer and leaves it in the low bits, n + offset. */
INLINE V NAME(reduce)(V x, real offset, VB *n) {
    const V magic = NAME(all)(R(1.5) * (real)((bits)1 << MANTISSA_BITS) + offset);
    const V shifted = NAME(fma)(x, NAME(all)(R(1.44269504088896340736)), magic);
    const V n_real = shifted - magic;
    *n = (VB)shifted;
    return NAME(fma)(n_real, NAME(all)(-LN2_LOW), NAME(fma)(n_real, NAME(all)(-LN2_HIGH), x));
}

/* (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, to 8e-9 in float and 2e-17 in double. */
INLINE V NAME(exp_tail)(V r) {
#if NNCORE_DOUBLE
    static const double c[] = {2.5100385495510319e-8, 2.7620088445409748e-7,  2.7557268459997065e-6,
                               2.4801521295954375e-5, 0.00019841269863053617, 0.0013888888917213717,
                               0.0083333333333300618, 0.041666666666624128,   0.16666666666666667,
                               0.5000000000000001};
#else
    static const float c[] = {0.0013926184f, 0.0083631791f, 0.041666555f, 0.16666577f, 0.5f};
#endif
    V p = NAME(all)(c[0]);
    for (size_t k = 1; k < sizeof c / sizeof c[0]; k++)
        p = NAME(fma)(p, r, NAME(all)(c[k]));
    return p;
}

/* 2 atanh(s) - 2 s for |s| <= (sqrt(2) - 1)/(sqrt(2) + 1), to 6e-9 and 1e-17 of s^3. */
INLINE V NAME(atanh_tail)(V s) {
#if NNCORE_DOUBLE
    static const double c[] = {0.14616585424888622, 0.15331710618210772, 0.18182889455674946,
                               0.22222211130259877, 0.28571428626003269, 0.39999999999899443,
                               0.66666666666666697};
#else
    static const float c[] = {0.29580053f, 0.39988778f, 0.66666685f};
#endif
    const V t = s * s;
    V p = NAME(all)(c[0]);
    for (size_t k = 1; k < sizeof c / sizeof c[0]; k++)
        p = NAME(fma)(p, t, NAME(all)(c[k]));
    return s * t * p;
}

/* 2^n; the shift drops all bits of n but the exponent's, and so what `reduce` leaves above it. */
INLINE V NAME(power_of_two)(VB biased) { return (V)(biased << MANTISSA_BITS); }

INLINE V NAME(exp)(V x) {
    /* Beyond these bounds the result is 0 or infinity; inside, both halves of 2^n are normal. */
    x = NAME(at_least)(x, NAME(all)(NNCORE_DOUBLE ? R(-746) : R(-104)));
    x = NAME(at_most)(x, NAME(all)(NNCORE_DOUBLE ? R(710) : R(89)));
    VB n;
    const V r = NAME(reduce)(x, 2 * EXPONENT_BIAS, &n);
    const V p = 1 + NAME(fma)(r * r, NAME(exp_tail)(r), r);
    n &= 4 * EXPONENT_BIAS + 3;
    const VB half = n >> 1;
    return p * NAME(power_of_two)(half) * NAME(power_of_two)(n - half);
}

/* e^x for x <= 0. What 2^n is raised by, so that it is normal, is taken back at the end, where the
 * result may round to a subnormal number. */
INLINE V NAME(exp_nonpositive)(V x) {
    const real raised = NNCORE_DOUBLE ? R(512) : R(64);
    x = NAME(at_least)(x, NAME(all)(NNCORE_DOUBLE ? R(-746) : R(-104)));
    VB n;
    const V r = NAME(reduce)(x, EXPONENT_BIAS + raised, &n);
    const V p = 1 + NAME(fma)(r * r, NAME(exp_tail)(r), r);
    return p * NAME(power_of_two)(n) * (NNCORE_DOUBLE ? R(0x1p-512) : R(0x1p-64));
}

/* e^x - 1 for x <= 0. */
INLINE V NAME(expm1_nonpositive)(V x) {
    /* Below, the result rounds to -1. */
    x = NAME(at_least)(x, NAME(all)(NNCORE_DOUBLE ? R(-50) : R(-30)));
    VB n;
    const V r = NAME(reduce)(x, EXPONENT_BIAS, &n);
    const V p = NAME(fma)(r * r, NAME(exp_tail)(r), r);
    const V scale = NAME(power_of_two)(n);
    return NAME(fma)(scale, p, scale - 1);
}

/* ln x for normal x > 0; infinity gives NaN. */
INLINE V NAME(log)(V x) {
    const bits sqrt_half = NNCORE_DOUBLE ? (bits)0x3fe6a09e667f3bcdu : (bits)0x3f3504f3u;
    /* Biased by 2 * EXPONENT_BIAS so that the shift sees no sign. */
    const VB biased = (VB)x - sqrt_half + ((bits)(2 * EXPONENT_BIAS) << MANTISSA_BITS);
    const VB n = (biased >> MANTISSA_BITS) - 2 * EXPONENT_BIAS;
    const V magic = NAME(all)(R(1.5) * (real)((bits)1 << MANTISSA_BITS));
    const V n_real = (V)((VB)magic + n) - magic;
    const V m = (V)((VB)x - (n << MANTISSA_BITS));
    const V s = (m - 1) / (m + 1);
    const V fraction = NAME(fma)(n_real, NAME(all)(LN2_LOW), 2 * s + NAME(atanh_tail)(s));
    return NAME(fma)(n_real, NAME(all)(LN2_HIGH), fraction) + (x - x);
}

/* ln(1 + x) for 0 <= x <= 1. */
INLINE V NAME(log1p_unit)(V x) {
    const VB large = (VB)(x > R(0.41421356237309504880));
    const V f = SELECT(large, (x - 1) * R(0.5), x);
    const V s = f / (2 + f);
    const V ln2 = (V)(large & (VB)NAME(all)(R(0.69314718055994530942)));
    return ln2 + (2 * s + NAME(atanh_tail)(s));
}

/* sigma(z) = 1 / (1 + e^-z); e^-|z| cannot overflow. What 1 + e loses in rounding, exactly
 * `lost`, is put back to first order, with 1/(1 + e) taken as 1 - e/2: it is worth half an ulp. */
INLINE V NAME(sigmoid)(V z) {
    const V e = NAME(exp_nonpositive)(NAME(negative_abs)(z));
    const V denominator = 1 + e;
    const V lost = e - (denominator - 1);
    const V y = SELECT(z < 0, e, NAME(all)(1)) / denominator;
    return NAME(fma)(-y, lost * NAME(fma)(e, NAME(all)(R(-0.5)), NAME(all)(1)), y);
}

INLINE V NAME(tanh)(V z) {
    const V t = NAME(expm1_nonpositive)(2 * NAME(negative_abs)(z));
    return NAME(copy_sign)(-t / (2 + t), z);
}

INLINE V NAME(softplus)(V z) {
    const V positive = NAME(at_least)(z, NAME(all)(0));
    return positive + NAME(log1p_unit)(NAME(exp_nonpositive)(NAME(negative_abs)(z)));
}
