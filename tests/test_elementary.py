"""The accuracy of the compiled elementary functions, in units in the last place.

A unit in the last place (ulp) is the distance between neighbouring numbers of the type around the
exact value. The limits on exp, sigma and tanh are promises; those on the others are what
was measured, rounded up.
"""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

from nncore import _kernels, reference
from nncore.enums import Activation, range_of

Array = npt.NDArray[Any]
DType = np.dtype[Any]

N_POINTS = 300_000
KEPT = ["silu", "gelu", "gelu_tanh"]
LONG_DOUBLE_IS_WIDER = np.finfo(np.longdouble).nmant > 60


def apply(activation: Activation, x: Array) -> Array:
    """sigma(x), as a layer of one input that is 1, with the weights x."""
    A: Array = np.full((1, x.size), np.nan, x.dtype)
    one, no_bias = np.ones((1, 1), x.dtype), np.zeros(x.size, x.dtype)
    _kernels.forward(A, one, x[np.newaxis], no_bias, activation)
    outputs: Array = A[0]
    return outputs


def apply_map(kernel: Callable[[Array, Array], int], x: Array) -> Array:
    out = np.full_like(x, np.nan)
    kernel(out, x)
    return out


COMPILED: dict[str, Callable[[Array], Array]] = {
    "exp": lambda x: apply_map(_kernels.exp, x),
    "log": lambda x: apply_map(_kernels.log, x),
    "sigmoid": lambda x: apply(Activation.SIGMOID, x),
    "tanh": lambda x: apply(Activation.TANH, x),
    "softplus": lambda x: apply(Activation.SOFTPLUS, x),
    "elu": lambda x: apply(Activation.ELU, x),
    "silu": lambda x: apply(Activation.SILU, x),
    "gelu": lambda x: apply(Activation.GELU, x),
    "gelu_tanh": lambda x: apply(Activation.GELU_TANH, x),
}


def gelu_tanh_exponent(x: Any, pi: Any, one: Any) -> Any:
    """Return w, where gelu_tanh is x sigmoid(w), in the type of the arguments."""
    return (8 * one / pi) ** (one / 2) * (x + 44715 * one / 1_000_000 * x**3)


def wide_exponent(x: Array) -> Array:
    one = x.dtype.type(1)
    exponent: Array = gelu_tanh_exponent(np.clip(x, -50, 50), 4 * np.arctan(one), one)
    return exponent


# The same functions in a wider type, and in as many digits as needed.
WIDER: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: x / (1 + np.exp(-wide_exponent(x))),
}
DIGITS: dict[str, Callable[[Any], Any]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "softplus": lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-abs(x))),
    "elu": lambda x: mpmath.expm1(x) if x < 0 else x,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.erfc(-max(x, -100) / mpmath.sqrt(2)) / 2,
    "gelu_tanh": lambda x: (
        x / (1 + mpmath.exp(-gelu_tanh_exponent(max(x, -50), mpmath.pi, mpmath.mpf(1))))
    ),
}

# exp 1.1, sigma 2.0, tanh 2.7, softplus 2.8, elu 1.3 and log 2.1 were the largest errors seen, silu
# 2.8, gelu 4.5, and gelu_tanh 2.4 times 1 + |w|, where it is z sigmoid(w).
LIMITS = {
    "exp": 2,
    "log": 3,
    "sigmoid": 2,
    "tanh": 4,
    "softplus": 4,
    "elu": 2,
    "silu": 4,
    "gelu": 5,
    "gelu_tanh": 4,
}


def neighbours(values: Array, reach: int) -> Array:
    """Return the numbers up to `reach` places above and below each of the values."""
    bits = values.view(f"i{values.itemsize}")[:, np.newaxis]
    around: Array = bits + np.arange(-reach, reach + 1, dtype=bits.dtype)
    return around.ravel().view(values.dtype)


def points(dtype: DType, seed: int = 0) -> Array:
    """Return finite numbers of all sizes, and many where something changes."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    # e^x goes from below the least number to infinity.
    least, greatest = math.log(float(info.smallest_subnormal)) - 2, math.log(float(info.max)) + 1
    any_bits = rng.integers(0, 2 ** (8 * dtype.itemsize), N_POINTS, dtype=f"u{dtype.itemsize}")
    subnormal_bits = rng.integers(1, 2**info.nmant, N_POINTS // 8, dtype=f"u{dtype.itemsize}")
    ordinary = [
        rng.uniform(least, greatest, N_POINTS),
        rng.standard_normal(N_POINTS),
        rng.choice([-1, 1], N_POINTS) * 2 ** rng.uniform(-info.nmant - 4, 8, N_POINTS),
    ]
    # The reduction of e^x changes at the odd multiples of ln(2)/2, that of e^2x at half of it.
    halves = np.arange(-2200, 2200) * (math.log(2) / 4)
    ordinary_powers = 2.0 ** np.arange(-30, 11)
    special = [
        *halves[(halves > least) & (halves < greatest)],
        *ordinary_powers,
        *-ordinary_powers,
        # sqrt(2) and its neighbours are where the reductions of log and log1p change; then come
        # the bounds beyond which arguments are cut off, and where tanh and sigma reach 1.
        *(math.sqrt(2), math.sqrt(0.5), math.log(math.sqrt(2) - 1)),
        *(-15, -25, -30, -50, -104, -746, 89, 710, 9, 17, 18.7, 36.7),
        *(math.log(float(x)) for x in (info.max, info.tiny, info.smallest_subnormal)),
    ]
    ends = np.array([0, info.smallest_subnormal, info.tiny, info.max], dtype)
    x = np.concatenate(
        [
            any_bits.view(dtype),
            subnormal_bits.view(dtype),
            -subnormal_bits.view(dtype),
            *(values.astype(dtype) for values in ordinary),
            neighbours(np.array(special, dtype), 16),
            ends,
            -ends,
        ]
    )
    finite: Array = x[np.isfinite(x)]
    return finite


def errors_by_wider_type(name: str, x: Array, y: Array) -> Array:
    info = np.finfo(x.dtype)
    wider = np.float64 if x.dtype == np.float32 else np.longdouble
    with np.errstate(over="ignore", under="ignore"):
        exact = WIDER[name](x.astype(wider))
    exponents = np.where(exact == 0, info.minexp, np.frexp(exact)[1] - 1)
    ulp = np.ldexp(wider(1), np.clip(exponents, info.minexp, info.maxexp - 1) - info.nmant)
    beyond = np.ldexp(wider(1), info.maxexp)
    errors: Array = np.abs(
        np.clip(y.astype(wider), -beyond, beyond) - np.clip(exact, -beyond, beyond)
    )
    errors /= ulp
    return errors


def errors_by_many_digits(name: str, x: Array, y: Array) -> Array:
    info = np.finfo(x.dtype)
    errors = []
    with mpmath.workprec(120):
        beyond = mpmath.mpf(2) ** info.maxexp
        for x_i, y_i in zip(x.tolist(), y.tolist(), strict=True):
            exact = max(-beyond, min(beyond, DIGITS[name](mpmath.mpf(x_i))))
            exponent = mpmath.frexp(exact)[1] - 1 if exact else info.minexp
            ulp = mpmath.mpf(2) ** (min(max(exponent, info.minexp), info.maxexp - 1) - info.nmant)
            errors.append(abs(max(-beyond, min(beyond, mpmath.mpf(y_i))) - exact) / ulp)
    return np.array(errors, float)


def has_wider_type(name: str, dtype: DType) -> bool:
    return name in WIDER and (dtype == np.float32 or LONG_DOUBLE_IS_WIDER)


def ulp_errors(name: str, x: Array) -> Array:
    """Return |computed - exact| in ulp; infinity counts as the power of two that follows max."""
    errors = errors_by_wider_type if has_wider_type(name, x.dtype) else errors_by_many_digits
    return errors(name, x, COMPILED[name](x))


def sensitivity(name: str, x: Array) -> Array:
    """Return how many times as large as the argument's relative error the result's may be."""
    exponents = wide_exponent(x) if name == "gelu_tanh" else np.zeros_like(x)
    return np.asarray(1 + np.abs(exponents))


@pytest.mark.parametrize("name", COMPILED)
def test_error_stays_below_its_limit_over_the_whole_range(dtype: DType, name: str) -> None:
    x = points(dtype)
    if name == "log":
        x = x[x >= np.finfo(dtype).tiny]
    if not has_wider_type(name, dtype):
        x = x[:: x.size // 20_000].copy()
    errors = ulp_errors(name, x) / sensitivity(name, x)
    worst = int(errors.argmax())
    assert errors[worst] <= LIMITS[name], f"{errors[worst]:.2f} ulp at x = {x[worst]!r}"


@pytest.mark.parametrize("name", WIDER)
def test_wider_type_agrees_with_many_digits(name: str) -> None:
    """What the errors are measured against is right itself."""
    x = points(np.dtype(np.float64), seed=1)[::5000]
    x = x[np.abs(x) < 700]
    if name == "log":
        x = np.abs(x[x != 0])
    with mpmath.workprec(200):
        exact = [DIGITS[name](mpmath.mpf(x_i)) for x_i in x.tolist()]
        wider = [mpmath.mpf(str(y)) for y in WIDER[name](x.astype(np.longdouble))]
        few_ulp = 8 * mpmath.mpf(str(np.finfo(np.longdouble).eps))
        for y, value, factor in zip(wider, exact, sensitivity(name, x), strict=True):
            assert abs(y - value) <= few_ulp * float(factor) * abs(value)


INF = math.inf


@pytest.mark.parametrize(
    ("name", "x", "limit"),
    [
        ("exp", -INF, 0.0),
        ("exp", INF, INF),
        ("sigmoid", -INF, 0.0),
        ("sigmoid", INF, 1.0),
        ("tanh", -INF, -1.0),
        ("tanh", INF, 1.0),
        ("softplus", -INF, 0.0),
        ("softplus", INF, INF),
        ("elu", -INF, -1.0),
        ("elu", INF, INF),
        *((name, x, max(x, 0.0)) for name in KEPT for x in (-INF, INF)),
    ],
)
@pytest.mark.parametrize("count", [1, 19])
def test_infinity_gives_the_limit(
    dtype: DType, name: str, x: float, limit: float, count: int
) -> None:
    np.testing.assert_array_equal(
        COMPILED[name](np.full(count, x, dtype)), np.full(count, limit, dtype)
    )


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("at", [0, 7, 18])
def test_nan_stays_nan_and_disturbs_no_neighbour(dtype: DType, name: str, at: int) -> None:
    x = np.full(19, 0.5, dtype)
    x[at] = np.nan
    assert np.flatnonzero(np.isnan(COMPILED[name](x))).tolist() == [at]


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("bits", ["signalling", "negative", "all ones"])
def test_every_kind_of_nan_stays_nan(dtype: DType, name: str, bits: str) -> None:
    word = {4: "u4", 8: "u8"}[dtype.itemsize]
    nmant = int(np.finfo(dtype).nmant)
    exponent = (2 ** (8 * dtype.itemsize - 1 - nmant) - 1) << nmant
    pattern = {
        "signalling": exponent | 1,
        "negative": (1 << (8 * dtype.itemsize - 1)) | exponent | (1 << (nmant - 1)),
        "all ones": 2 ** (8 * dtype.itemsize) - 1,
    }[bits]
    x = np.full(9, pattern, word).view(dtype)
    assert np.isnan(COMPILED[name](x)).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp", 1.0),
        ("sigmoid", 0.5),
        ("tanh", 0.0),
        ("softplus", math.log(2)),
        ("elu", 0.0),
        *((name, 0.0) for name in KEPT),
    ],
)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_gives_the_exact_value(dtype: DType, name: str, value: float, zero: float) -> None:
    np.testing.assert_array_equal(COMPILED[name](np.full(9, zero, dtype)), np.full(9, value, dtype))


@pytest.mark.parametrize("name", WIDER)
def test_the_two_measures_of_error_agree(name: str) -> None:
    x = np.random.default_rng(6).uniform(0.1, 20, 200).astype(np.float32)
    y = COMPILED[name](x)
    np.testing.assert_allclose(
        errors_by_wider_type(name, x, y), errors_by_many_digits(name, x, y), atol=1e-6
    )


def test_log_of_one_is_exactly_zero(dtype: DType) -> None:
    np.testing.assert_array_equal(COMPILED["log"](np.ones(9, dtype)), np.zeros(9, dtype))


def test_overflow_and_underflow_of_exp_are_infinity_and_zero(dtype: DType) -> None:
    largest = np.finfo(dtype).max
    np.testing.assert_array_equal(
        COMPILED["exp"](np.array([-largest, -1e4, 1e4, largest], dtype)), [0, 0, np.inf, np.inf]
    )


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("exp", 0.0, INF),
        ("sigmoid", 0.0, 1.0),
        ("tanh", -1.0, 1.0),
        ("softplus", 0.0, INF),
        ("elu", -1.0, INF),
        *((name, *range_of(Activation[name.upper()], 1.0)) for name in KEPT),
    ],
)
def test_values_stay_in_their_range(dtype: DType, name: str, low: float, high: float) -> None:
    """Derivatives such as a(1 - a) must not change their sign by a rounding error."""
    y = COMPILED[name](points(dtype, seed=2))
    assert y.min() >= low
    assert y.max() <= high


def test_tanh_is_odd_to_the_last_bit(dtype: DType) -> None:
    x = points(dtype, seed=3)
    np.testing.assert_array_equal(COMPILED["tanh"](-x), -COMPILED["tanh"](x))


@pytest.mark.parametrize("name", COMPILED)
def test_value_does_not_depend_on_the_place_in_the_array(dtype: DType, name: str) -> None:
    """The last elements, which fill no vector, are computed by the same formulas."""
    x = np.abs(points(dtype, seed=4)[:101]) + np.finfo(dtype).tiny
    whole = COMPILED[name](x)
    for start in range(20):
        np.testing.assert_array_equal(COMPILED[name](x[start:].copy()), whole[start:])


@pytest.mark.parametrize(
    "activation",
    [
        *(Activation.SIGMOID, Activation.TANH, Activation.SOFTPLUS, Activation.ELU),
        *(Activation.SILU, Activation.GELU, Activation.GELU_TANH),
    ],
)
def test_reference_agrees_without_overflow_or_division_by_zero(
    dtype: DType, activation: Activation
) -> None:
    x = np.concatenate([points(dtype, seed=5), np.array([np.inf, -np.inf], dtype)])
    A = np.empty((1, x.size), dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        reference.forward(
            A, np.ones((1, 1), dtype), x[np.newaxis], np.zeros(x.size, dtype), activation
        )
    few_ulp = 16 * np.finfo(dtype).eps * sensitivity(activation.name.lower(), x)
    if activation == Activation.GELU:
        few_ulp *= 1 + np.clip(x, -50, 50) ** 2  # erfc's argument is rounded
    # In the reference, factors of SiLU and GELU may be subnormal or underflow.
    tiny = np.finfo(dtype).tiny
    actual, expected = apply(activation, x), A[0]
    with np.errstate(invalid="ignore"):  # of inf - inf
        near = np.abs(actual - expected) <= tiny + few_ulp * np.abs(expected)
    assert (near | (actual == expected)).all()


# sigma', which the last three functions compute, too

DERIVATIVES: dict[str, Callable[[Any], Any]] = {
    "silu": lambda x: logistic(x) * (1 + x * logistic(-x)),
    "gelu": lambda x: (
        mpmath.erfc(-x / mpmath.sqrt(2)) / 2
        + x * mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)
    ),
    "gelu_tanh": lambda x: mpmath.diff(DIGITS["gelu_tanh"], x),
}


def logistic(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def derivatives(name: str, x: Array) -> Array:
    A, out = np.empty((1, x.size), x.dtype), np.full((1, x.size), np.nan, x.dtype)
    one, no_bias = np.ones((1, 1), x.dtype), np.zeros(x.size, x.dtype)
    _kernels.forward(A, one, x[np.newaxis], no_bias, Activation[name.upper()], out)
    result: Array = out[0]
    return result


@pytest.mark.parametrize("name", KEPT)
def test_error_of_a_derivative_stays_below_two_ulp_of_one(dtype: DType, name: str) -> None:
    """It crosses 0, near which no relative error is small."""
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.standard_normal(1000), rng.uniform(-60, 60, 500)]).astype(dtype)
    with mpmath.workprec(200):
        exact = [float(DERIVATIVES[name](mpmath.mpf(x_i))) for x_i in x.tolist()]
    np.testing.assert_allclose(derivatives(name, x), exact, rtol=0, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", KEPT)
def test_derivatives_have_limits_and_keep_nan(dtype: DType, name: str) -> None:
    largest = float(np.finfo(dtype).max)
    x = np.array([-INF, -largest, -1e3, 0, 1e3, largest, INF, np.nan], dtype)
    np.testing.assert_array_equal(derivatives(name, x), [0, 0, 0, 0.5, 1, 1, 1, np.nan])
