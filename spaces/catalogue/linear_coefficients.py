"""Methods that are one linear combination: their coefficients, from inner products and scalars.

``out = sum_i c_i x_i``, or ``base + sum_i c_i (x_i - base)`` where a base is given. The Gram matrix
holds the inner products of what is summed: of the inputs, or of their deltas. Everything here is
arithmetic on a few Python floats (float64), the same on every machine. Formulas: docs/methods.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spaces.catalogue.method import Gram

_PARALLEL = 0.9995  # |cosine| above which slerp is a straight line
_NO_WEIGHT = 1e-8  # a sum of weights below this does not divide
_HALFWAY = 1e-6  # a sum of two weights below this says nothing about t
_SMALLEST_NORMS = 1e-6  # model stock's least product of two norms
_SINGULAR = 1e-6  # model stock: no estimate where the denominator is below this


def linear_coefficients(weights: Sequence[float], *, normalize: bool) -> tuple[float, ...]:
    """The weights, divided by their sum if ``normalize`` (which must then not be 0)."""
    total = math.fsum(weights) if normalize else 1.0
    return tuple(weight / total for weight in weights)


def task_arithmetic_coefficients(
    weights: Sequence[float], *, normalize: bool, strength: float
) -> tuple[float, ...]:
    """Lambda w, divided by the sum of the weights if ``normalize`` and that is not 0."""
    total = math.fsum(weights)
    factor = strength / total if normalize and abs(total) >= _NO_WEIGHT else strength
    return tuple(factor * weight for weight in weights)


def slerp_coefficients(gram: Gram, *, t: float) -> tuple[float, ...]:
    """Slerp between two tensors; a straight line where they are (anti)parallel.

    Args:
        gram: Of the start and the end.
        t: Position on the arc; 0 gives the start, 1 the end; may lie outside.
    """
    norms = [math.sqrt(gram[i][i]) for i in range(2)]
    first, second = (norm if norm > 1e-8 else 1.0 for norm in norms)
    cosine = _clamped(gram[0][1] / (first * second))
    if abs(cosine) > _PARALLEL:
        return 1.0 - t, t
    return _arc(math.acos(cosine), t)


def nuslerp_coefficients(gram: Gram, *, weights: Sequence[float]) -> tuple[float, ...]:
    """The arc between two tensors, at the second one's share of the weights."""
    total = weights[0] + weights[1]
    t = 0.5 if abs(total) < _HALFWAY else weights[1] / total
    first, second = (max(math.sqrt(gram[i][i]), 1e-7) for i in range(2))
    cosine = _clamped(gram[0][1] / (first * second))
    if 1.0 - cosine * cosine <= 1e-16:
        return 1.0 - t, t
    return _arc(math.acos(cosine), t)


def multislerp_coefficients(
    gram: Gram, *, weights: Sequence[float], normalize: bool, eps: float
) -> tuple[float, ...]:
    """The weighted mean direction with the weighted mean norm.

    Multi-SLERP moves from that mean along the weighted mean of the tangents to the inputs, which is
    0: the mean direction is where the tangents balance. So no move is left. Where the mean has no
    direction, the plain weighted sum.

    Args:
        gram: Of the inputs or their deltas.
        weights: One per input.
        normalize: Divide the weights by their sum, which must then not be 0.
        eps: Added to norms; a mean direction shorter than it is none.
    """
    shares = linear_coefficients(weights, normalize=normalize)
    norms = [math.sqrt(gram[i][i]) for i in range(len(shares))]
    mean = [share / (norm + eps) for share, norm in zip(shares, norms, strict=True)]
    length = _norm(gram, mean)
    if length < eps:
        return shares
    scale = math.fsum(share * norm for share, norm in zip(shares, norms, strict=True))
    return tuple(scale * part / length for part in mean)


def karcher_coefficients(gram: Gram, *, max_iter: int, tol: float) -> tuple[float, ...]:
    """The Karcher mean of the directions with the mean of the norms.

    Gradient descent on the sphere in the span of the inputs. Angles within ``tol`` of 0 or of half
    a turn, where the way to the input is no way or any way, do not pull.

    Args:
        gram: Of the inputs.
        max_iter: Most steps.
        tol: Stop at a shorter step; norms up to it have no direction.
    """
    norms = [math.sqrt(row[i]) for i, row in enumerate(gram)]
    valid = [i for i, norm in enumerate(norms) if norm > tol]
    if not valid:
        return (0.0,) * len(norms)
    units = [[gram[i][j] / (norms[i] * norms[j]) for j in valid] for i in valid]
    count = len(valid)
    mean = [1.0 / count] * count
    length = _norm(units, mean)
    mean = _scaled(mean, 1.0 / length) if length >= tol else [1.0, *[0.0] * (count - 1)]
    for _ in range(max_iter):
        step = _pull(units, mean, tol)
        size = _norm(units, step)
        if size < tol:
            break
        ahead, aside = math.cos(size), math.sin(size) / size
        mean = [ahead * m + aside * s for m, s in zip(mean, step, strict=True)]
        length = _norm(units, mean)
        mean = _scaled(mean, 1.0 / length) if length > tol else mean
    scale = math.fsum(norms) / len(norms)
    found = dict(zip(valid, mean, strict=True))
    return tuple(scale * found[i] / norm if i in found else 0.0 for i, norm in enumerate(norms))


def model_stock_coefficients(gram: Gram) -> tuple[float, ...]:
    """T / N for every delta, with t from the mean cosine between two deltas.

    One delta alone has no angle to another: the base stays. So it does where t has no finite value.
    """
    count = len(gram)
    if count < 2:
        return (0.0,) * count
    norms = [math.sqrt(gram[i][i]) for i in range(count)]
    cosines = [
        _clamped(gram[i][j] / max(norms[i] * norms[j], _SMALLEST_NORMS))
        for i in range(count)
        for j in range(i + 1, count)
    ]
    cosine = math.fsum(cosines) / len(cosines)
    divisor = 1.0 + (count - 1) * cosine
    t = 0.0 if abs(divisor) < _SINGULAR else count * cosine / divisor
    return (t / count,) * count


def _arc(angle: float, t: float) -> tuple[float, float]:
    """The coefficients of slerp at an angle."""
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _clamped(cosine: float) -> float:
    return max(-1.0, min(1.0, cosine))


def _norm(gram: Gram, coefficients: Sequence[float]) -> float:
    """The norm of a linear combination."""
    count = range(len(coefficients))
    square = math.fsum(gram[i][j] * coefficients[i] * coefficients[j] for i in count for j in count)
    return math.sqrt(max(0.0, square))


def _scaled(values: Sequence[float], factor: float) -> list[float]:
    return [factor * value for value in values]


def _pull(units: Gram, mean: Sequence[float], tol: float) -> list[float]:
    """The mean of the ways from a point on the sphere to the inputs, as a combination of these."""
    count = len(mean)
    step = [0.0] * count
    for i in range(count):
        cosine = _clamped(math.fsum(units[i][j] * mean[j] for j in range(count)))
        angle = math.acos(cosine)
        if angle < tol or math.pi - angle < tol:
            continue
        factor = angle / math.sin(angle) / count
        for j in range(count):
            step[j] -= factor * cosine * mean[j]
        step[i] += factor
    return step
