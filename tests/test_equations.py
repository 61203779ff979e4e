"""The equations of the paper, by numbers worked out by hand, and its two readings of one memory.

The paper is T. Zollner, "Matrizen in Neuronalen Netzen"; its section numbers are given. It writes
w_{j,i}^l for the weight from unit j of layer l-1 to unit i of layer l and puts it in row i, column
j of W^l; here the same number is W[j, i]. Its sums from 0 to n^l run over all units of the layer
before.
"""

import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_array_equal

from nncore.enums import Activation, Loss

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Close = Callable[..., None]

LN_3 = math.log(3)


def to_seven_digits(actual: Array, expected: npt.ArrayLike) -> None:
    np.testing.assert_allclose(actual, np.asarray(expected, float), rtol=0, atol=5e-7)


def test_feed_forward_worked_by_hand(twin: ModuleType, dtype: DType) -> None:
    """Section 2.3: z_i = b_i + sum_j a_j w_{j,i}, a = sigma(z).

    Two inputs a^0 = (1, 2), three units::

        w_{0,0} =  0.5   w_{1,0} = -0.25   b_0 =  1     z_0 =  0.5 - 0.5 + 1 =  1
        w_{0,1} =  1     w_{1,1} = -1      b_1 =  1     z_1 =  1   - 2   + 1 =  0
        w_{0,2} = -3     w_{1,2} =  0.5    b_2 =  0     z_2 = -3   + 1   + 0 = -2

    With e^-1 = 0.3678794 and e^2 = 7.3890561::

        a_0 = 1 / 1.3678794 = 0.7310586
        a_1 = 1 / 2         = 0.5
        a_2 = 1 / 8.3890561 = 0.1192029
    """
    A_prev = np.array([[1, 2]], dtype)
    W = np.array([[0.5, 1, -3], [-0.25, -1, 0.5]], dtype)
    b = np.array([1, 1, 0], dtype)
    A = np.empty((1, 3), dtype)
    twin.forward(A, A_prev, W, b, Activation.IDENTITY)
    assert_array_equal(A, [[1, 0, -2]])
    twin.forward(A, A_prev, W, b, Activation.SIGMOID)
    to_seven_digits(A, [[0.7310586, 0.5, 0.1192029]])


def test_deltas_and_gradients_of_one_example_worked_by_hand(
    twin: ModuleType, dtype: DType, close: Close
) -> None:
    """Section 3.5, and the loss of 3.2 and the step of 3.3: a 2-2-1 network in fractions.

    sigma(ln 3) = 1 / (1 + 1/3) = 3/4, so that a bias of ln 3 keeps everything a fraction.
    The example is a^0 = (1, 2), y = 1. Forward::

        w^1_{0,0} =  1   w^1_{1,0} = -1/2   b^1_0 = ln 3   z^1_0 =  1 - 1 + ln 3   a^1_0 = 3/4
        w^1_{0,1} = -2   w^1_{1,1} =  1     b^1_1 = 0      z^1_1 = -2 + 2 + 0 = 0  a^1_1 = 1/2
        w^2_{0,0} =  2   w^2_{1,0} = -3     b^2_0 = 0      z^2_0 = 3/2 - 3/2 = 0   a^2_0 = 1/2

    The loss is E = 1/2 (1 - 1/2)^2 = 1/8. Backward, with sigma'(z) = a(1 - a)::

        delta^2_0 = (1/2 - 1) * 1/2 * 1/2      = -1/8
        delta^1_0 = (-1/8 *  2) * 3/4 * 1/4    = -3/64
        delta^1_1 = (-1/8 * -3) * 1/2 * 1/2    =  3/32

    dE/dw_{j,i} = delta_i a_j and dE/db_i = delta_i::

        dw^2_{0,0} = -1/8 * 3/4 = -3/32    dw^2_{1,0} = -1/8 * 1/2 = -1/16    db^2_0 = -1/8
        dw^1_{0,0} = -3/64 * 1  = -3/64    dw^1_{1,0} = -3/64 * 2  = -3/32    db^1_0 = -3/64
        dw^1_{0,1} =  3/32 * 1  =  3/32    dw^1_{1,1} =  3/32 * 2  =  3/16    db^1_1 =  3/32

    A step with eta = 32 and N = 1 takes w^2 to (2 + 3, -3 + 2) = (5, -1) and b^2 to 0 + 4 = 4.
    """
    A_0, Y = np.array([[1, 2]], dtype), np.array([[1]], dtype)
    W_1, b_1 = np.array([[1, -2], [-0.5, 1]], dtype), np.array([LN_3, 0], dtype)
    W_2, b_2 = np.array([[2], [-3]], dtype), np.array([0], dtype)
    A_1, delta_1 = np.empty((1, 2), dtype), np.empty((1, 2), dtype)
    A_2, delta_2 = np.empty((1, 1), dtype), np.empty((1, 1), dtype)
    dW_1, db_1 = np.empty((2, 2), dtype), np.empty(2, dtype)
    dW_2, db_2 = np.empty((2, 1), dtype), np.empty(1, dtype)

    twin.forward(A_1, A_0, W_1, b_1, Activation.SIGMOID)
    twin.forward(A_2, A_1, W_2, b_2, Activation.SIGMOID)
    close(A_1, [[3 / 4, 1 / 2]])
    close(A_2, [[1 / 2]])
    close(twin.loss(A_2, Y, None, Loss.SQUARED_ERROR), 1 / 8)

    twin.output_delta(delta_2, A_2, Y, None, Loss.SQUARED_ERROR, Activation.SIGMOID)
    twin.delta(delta_1, delta_2, W_2, A_1, Activation.SIGMOID)
    close(delta_2, [[-1 / 8]])
    close(delta_1, [[-3 / 64, 3 / 32]])

    twin.gradient(dW_2, db_2, delta_2, A_1, 1.0)
    twin.gradient(dW_1, db_1, delta_1, A_0, 1.0)
    close(dW_2, [[-3 / 32], [-1 / 16]])
    close(db_2, [-1 / 8])
    close(dW_1, [[-3 / 64, 3 / 32], [-3 / 32, 3 / 16]])
    close(db_1, [-3 / 64, 3 / 32])

    twin.gradient_descent(W_2, b_2, delta_2, A_1, 32.0)
    close(W_2, [[5], [-1]])
    close(b_2, [4])


def test_deltas_and_gradients_of_a_batch_worked_by_hand(twin: ModuleType, dtype: DType) -> None:
    """Sections 3.7 and 3.8: a 2-2-2 network, two examples, one per column::

        A^0 = (1 2)    W^1 = ln 3 (0 1)    b^1 = ln 3 (-1)    W^2 = (4  4)    b^2 = (-5)
              (2 1)               (2 1)               (-4)          (4 -4)          ( 0)

    Forward::

        Z^1 = ln 3 (2-1    1-1  ) = (ln 3  0   )    A^1 = (3/4 1/2)
                   (2+2-4  4+1-4)   (0     ln 3)          (1/2 3/4)
        Z^2 =      (3+2-5  2+3-5) = (0  0)          A^2 = (0.5       0.5      )
                   (3-2    2-3  )   (1 -1)                (0.7310586 0.2689414)

    Backward with Y = ((1, 0), (0, 1)), where (the paper's 3.8.1 has a slip, 3.6.1 is right)
    [delta^2] = (A^2 - Y) . A^2 . (1 - A^2), and 0.7310586 * 0.2689414 = 0.1966119::

        [delta^2] = (-0.5 * 0.25             0.5 * 0.25            ) = (-0.125      0.125    )
                    (0.7310586 * 0.1966119  -0.7310586 * 0.1966119 )   ( 0.1437348 -0.1437348)

        (W^2)^T [delta^2] = (-0.5 + 0.5749394    0.5 - 0.5749394) = ( 0.0749394 -0.0749394)
                            (-0.5 - 0.5749394    0.5 + 0.5749394)   (-1.0749394  1.0749394)

        [delta^1] = ( 0.0749394 * 3/16   -0.0749394 * 1/4 ) = ( 0.0140511 -0.0187348)
                    (-1.0749394 * 1/4     1.0749394 * 3/16)   (-0.2687348  0.2015511)

    The gradients [delta^l] (A^{l-1})^T, summed over the examples::

        dW^2 = (-0.125 * 3/4 + 0.125 * 1/2   -0.125 * 1/2 + 0.125 * 3/4) = (-0.03125    0.03125  )
               (0.1437348 * (3/4 - 1/2)      0.1437348 * (1/2 - 3/4)   )   ( 0.0359337 -0.0359337)

        dW^1 = (0.0140511 * 1 - 0.0187348 * 2    0.0140511 * 2 - 0.0187348 * 1)
               (-0.2687348 * 1 + 0.2015511 * 2  -0.2687348 * 2 + 0.2015511 * 1)
             = (-0.0234186  0.0093674)
               ( 0.1343674 -0.3359186)

    and [delta^l] times the vector of ones::

        db^2 = (-0.125 + 0.125, 0.1437348 - 0.1437348) = (0, 0)
        db^1 = (0.0140511 - 0.0187348, -0.2687348 + 0.2015511) = (-0.0046837, -0.0671837)

    The matrices above, column by column, are the arrays below, row by row.
    """
    A_0, Y = np.array([[1, 2], [2, 1]], dtype), np.array([[1, 0], [0, 1]], dtype)
    W_1, b_1 = np.array([[0, 2], [1, 1]], dtype), np.array([-1, -4], dtype)
    W_1 *= dtype.type(LN_3)
    b_1 *= dtype.type(LN_3)
    W_2, b_2 = np.array([[4, 4], [4, -4]], dtype), np.array([-5, 0], dtype)
    A_1, A_2, delta_1, delta_2, dW_1, dW_2 = (np.empty((2, 2), dtype) for _ in range(6))
    db_1, db_2 = np.empty(2, dtype), np.empty(2, dtype)

    twin.forward(A_1, A_0, W_1, b_1, Activation.SIGMOID)
    twin.forward(A_2, A_1, W_2, b_2, Activation.SIGMOID)
    to_seven_digits(A_1, [[0.75, 0.5], [0.5, 0.75]])
    to_seven_digits(A_2, [[0.5, 0.7310586], [0.5, 0.2689414]])

    twin.output_delta(delta_2, A_2, Y, None, Loss.SQUARED_ERROR, Activation.SIGMOID)
    twin.delta(delta_1, delta_2, W_2, A_1, Activation.SIGMOID)
    to_seven_digits(delta_2, [[-0.125, 0.1437348], [0.125, -0.1437348]])
    to_seven_digits(delta_1, [[0.0140511, -0.2687348], [-0.0187348, 0.2015511]])

    twin.gradient(dW_2, db_2, delta_2, A_1, 1.0)
    twin.gradient(dW_1, db_1, delta_1, A_0, 1.0)
    to_seven_digits(dW_2, [[-0.03125, 0.0359337], [0.03125, -0.0359337]])
    to_seven_digits(db_2, [0, 0])
    to_seven_digits(dW_1, [[-0.0234186, 0.1343674], [0.0093674, -0.3359186]])
    to_seven_digits(db_1, [-0.0046837, -0.0671837])


def sigma(z: Array) -> Array:
    a: Array = 1 / (1 + np.exp(-z))
    return a


def sigma_prime(z: Array) -> Array:
    a = sigma(z)
    derivative: Array = a * (1 - a)
    return derivative


SIZES = [5, 4, 3]
N = 6


def paper_network(rng: np.random.Generator) -> tuple[list[Array], list[Array], Array, Array]:
    """W^l (n_l x n_{l-1}), b^l, A^0 and Y with an example per column, all as in the paper."""
    W = [rng.standard_normal((n, m)) for m, n in itertools.pairwise(SIZES)]
    b = [rng.standard_normal(n) for n in SIZES[1:]]
    return W, b, rng.standard_normal((SIZES[0], N)), rng.uniform(0, 1, (SIZES[-1], N))


def vector_form(
    W: list[Array], b: list[Array], a_0: Array, y: Array
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return activations, deltas and gradients of one example by the paper's 2.4, 3.5 and 3.6."""
    z_1 = W[0] @ a_0 + b[0]
    a_1 = sigma(z_1)
    z_2 = W[1] @ a_1 + b[1]
    a_2 = sigma(z_2)
    delta_2 = (a_2 - y) * sigma_prime(z_2)
    delta_1 = (W[1].T @ delta_2) * sigma_prime(z_1)
    return [a_1, a_2], [delta_1, delta_2], [np.outer(delta_1, a_0), np.outer(delta_2, a_1)]


def matrix_form(
    twin: ModuleType, W: list[Array], b: list[Array], A_0: Array, Y: Array
) -> tuple[list[Array], list[Array], list[Array], list[Array]]:
    """Return activations, deltas, gradients and bias gradients by the kernels, an example a row."""
    A = [np.empty((len(A_0), n), A_0.dtype) for n in SIZES[1:]]
    delta = [np.empty_like(A_l) for A_l in A]
    dW, db = [np.empty_like(W_l) for W_l in W], [np.empty_like(b_l) for b_l in b]
    twin.forward(A[0], A_0, W[0], b[0], Activation.SIGMOID)
    twin.forward(A[1], A[0], W[1], b[1], Activation.SIGMOID)
    twin.output_delta(delta[1], A[1], Y, None, Loss.SQUARED_ERROR, Activation.SIGMOID)
    twin.delta(delta[0], delta[1], W[1], A[0], Activation.SIGMOID)
    twin.gradient(dW[1], db[1], delta[1], A[0], 1.0)
    twin.gradient(dW[0], db[0], delta[0], A_0, 1.0)
    return A, delta, dW, db


@pytest.mark.parametrize("at_once", [True, False], ids=["batch", "one by one"])
def test_matrix_form_equals_vector_form_of_each_example(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator, at_once: bool
) -> None:
    """Section 3.6, an example at a time, against 3.7 and 3.8."""
    W, b, A_0, Y = paper_network(rng)
    rows = [np.ascontiguousarray(x.T, dtype) for x in (*W, A_0, Y)]
    W_rows, A_0_rows, Y_rows = rows[:2], rows[2], rows[3]
    b_rows = [b_l.astype(dtype) for b_l in b]
    batches = [slice(0, N)] if at_once else [slice(k, k + 1) for k in range(N)]
    for batch in batches:
        A, delta, dW, db = matrix_form(twin, W_rows, b_rows, A_0_rows[batch], Y_rows[batch])
        examples = [vector_form(W, b, A_0[:, k], Y[:, k]) for k in range(*batch.indices(N))]
        for layer in range(2):
            for row, (a, delta_vector, _) in enumerate(examples):
                close(A[layer][row], a[layer])
                close(delta[layer][row], delta_vector[layer])
            close(dW[layer].T, sum(gradients[layer] for _, _, gradients in examples))
            close(db[layer], sum(delta_vector[layer] for _, delta_vector, _ in examples))


def test_column_major_arrays_of_the_paper_are_the_row_major_arrays_here(dtype: DType) -> None:
    """W^1, n_1 x n_0, column by column, has the bytes of weights[0], n_0 x n_1, row by row."""
    W_paper = np.asfortranarray(np.arange(12).reshape(4, 3), dtype)
    W = W_paper.T
    assert W.flags.c_contiguous
    assert np.shares_memory(W, W_paper)
    assert W.tobytes() == W_paper.tobytes(order="F")
    assert W[2, 1] == W_paper[1, 2]


def test_kernels_work_in_the_papers_orientation_without_a_copy(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator
) -> None:
    """Column-major outputs are written through `.T`, and follow the paper's matrix equations."""

    def column_major(*shape: int) -> Array:
        return np.asfortranarray(rng.standard_normal(shape), dtype)

    n_prev, n = 5, 3
    W, A_prev, delta = column_major(n, n_prev), column_major(n_prev, N), column_major(n, N)
    b = rng.standard_normal(n).astype(dtype)
    A, delta_prev, dW = column_major(n, N), column_major(n_prev, N), column_major(n, n_prev)
    db = np.empty(n, dtype)

    twin.forward(A.T, A_prev.T, W.T, b, Activation.SIGMOID)
    close(A, sigma(W.astype(float) @ A_prev + b[:, np.newaxis]))
    twin.delta(delta_prev.T, delta.T, W.T, A_prev.T, Activation.SIGMOID)
    close(delta_prev, (W.astype(float).T @ delta) * A_prev * (1 - A_prev), magnitude=10)
    twin.gradient(dW.T, db, delta.T, A_prev.T, 1.0)
    close(dW, delta.astype(float) @ A_prev.T)
    close(db, delta.astype(float) @ np.ones(N))
