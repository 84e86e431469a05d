"""The methods that choose entry by entry: SCE, RAM, NearSwap and Arcee Fusion.

Here stands what a choice depends on and has to be taken from whole tensors; the choices themselves,
elementwise, are in ``merging.kernels.torch_kernels.entrywise_kernels``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.kernels import dispatch
from merging.kernels.blocked_sums import BlockSum, Series, float_of, load
from merging.kernels.chunks import spans
from merging.kernels.keep_rules import Trimmed
from merging.kernels.torch_kernels.entrywise_kernels import variance
from merging.methods.linear_combination import line_sums
from merging.methods.operands import Operands, as_lines, series_of
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.inner_products import gram
from merging.tensor_statistics.order_statistics import trim

_INFINITY = 0x7F800000  # the bits of a float32
_LITTLE = 1e-6  # SCE: a sum of squares or of shares below this does not divide
_NEAREST = 1e-6  # NearSwap: smaller differences count as this
_SPARE = 1e-8  # Arcee Fusion: added to every probability


def sce(operands: Operands, out: Tensor, chunk: int) -> None:
    """Select the entries that vary most, weigh inputs by their squares, elect signs, average."""
    assert operands.base is not None  # the plan gives it one
    series = series_of(operands, out)
    selected = _most_varied(series, operands.number("select_topk", 1.0), chunk)
    if selected is None:
        squares = [gram([one], chunk=chunk)[0][0] for one in series]
    else:
        squares = _selected_squares(series, selected, chunk)
    shares = sce_shares([square / out.numel() for square in squares])
    limits = [] if selected is None else [[limit] for limit in selected.limits()]
    dispatch.merge(
        "sce_mean" if selected is None else "sce_selected",
        operands.inputs,
        operands.base,
        out,
        floats=[[_LITTLE], shares, *limits],
        ints=lambda start: [] if selected is None else [[selected.cutoff_from(start)]],
        chunk=operands.asked_chunk,
    )


def sce_shares(squares: Sequence[float]) -> list[float]:
    """The inputs' shares: their mean squares over the sum of these; equal where that is small."""
    whole = sum(squares)
    if abs(whole) < _LITTLE:
        return [1.0 / len(squares)] * len(squares)
    return [square / whole for square in squares]


_NONE_SELECTED = Trimmed(bits=_INFINITY, cutoff=0)


def _most_varied(series: Sequence[Series], share: float, chunk: int) -> Trimmed | None:
    """What a share of the entries with a variance is, the largest first; ``None`` for all."""
    if share >= 1:
        return None
    count, device = series[0].tensor.numel(), series[0].device
    variances = torch.empty(count, dtype=torch.float32, device=device)
    for start, stop in spans(count, chunk):
        variances[start:stop] = variance([one.part(start, stop) for one in series])
    kept = int(int(variances.count_nonzero()) * share)
    if kept == 0:
        return _NONE_SELECTED
    all_of_them = Series(tensor=variances, minus=None, device=device)
    return trim(all_of_them, kept, chunk=chunk)


def _selected_squares(series: Sequence[Series], selected: Trimmed, chunk: int) -> list[float]:
    """The sum of squares of each delta over the entries selected."""
    sums = [BlockSum() for _ in series]
    for start, stop in spans(series[0].tensor.numel(), chunk):
        deltas = [one.part(start, stop) for one in series]
        keep = selected.keep(variance(deltas), start)
        for block_sum, delta in zip(sums, deltas, strict=True):
            block_sum.add((delta * keep).double().square())
    return [block_sum.total() for block_sum in sums]


def ram(operands: Operands, out: Tensor, chunk: int) -> None:  # noqa: ARG001 - as all kernels
    """The mean of the deltas over the inputs that changed an entry."""
    _ram(operands, [1.0] * len(operands.inputs), out)


def ramplus_tl(operands: Operands, out: Tensor, chunk: int) -> None:  # noqa: ARG001
    """As RAM, with what only one input changed made larger, by how much it shares elsewhere."""
    shared, unique = _overlaps(operands, out)
    factors = ram_factors(
        shared,
        unique,
        r=operands.number("r", 0.1),
        alpha=operands.number("alpha", 0.2),
        epsilon=operands.number("epsilon", 1e-5),
    )
    _ram(operands, factors, out)


def ram_factors(
    shared: Sequence[int], unique: Sequence[int], *, r: float, alpha: float, epsilon: float
) -> list[float]:
    """RAM+'s factors of what only one input changed.

    Args:
        shared: Per input, entries that it and others changed.
        unique: Per input, entries that only it changed.
        r: Gain.
        alpha: Most overlap that counts.
        epsilon: Stands for no unique entries.
    """
    factors = []
    for common, own in zip(shared, unique, strict=True):
        few = max(float(own), epsilon)
        overlap = common / few if few else math.inf
        factors.append(1.0 + r * min(overlap, alpha))
    return factors


def _ram(operands: Operands, factors: Sequence[float], out: Tensor) -> None:
    dispatch.merge(
        "ram_mean",
        operands.inputs,
        operands.base,
        out,
        floats=[[operands.number("epsilon", 1e-5)], [factor - 1.0 for factor in factors]],
        chunk=operands.asked_chunk,
    )


def _overlaps(operands: Operands, out: Tensor) -> tuple[list[int], list[int]]:
    """Per input, how many entries it changed together with others, and how many alone."""
    assert operands.base is not None  # the plan gives it one
    counts = dispatch.total(
        "overlaps",
        [*operands.inputs, operands.base],
        floats=[operands.number("epsilon", 1e-5)],
        device=out.device,
        chunk=operands.asked_chunk,
    )
    found = [int(count) for count in counts]
    return found[: len(operands.inputs)], found[len(operands.inputs) :]


def nearswap(operands: Operands, out: Tensor, chunk: int) -> None:  # noqa: ARG001 - as all kernels
    """The first input, moved to the second one where the two are near."""
    if len(operands.inputs) == 1:
        _as_it_is(operands, out)
        return
    dispatch.merge(
        "near_pair",
        operands.inputs,
        None,
        out,
        floats=[[operands.number("t", 0.0)], [_NEAREST]],
        chunk=operands.asked_chunk,
    )


def arcee_fusion(operands: Operands, out: Tensor, chunk: int) -> None:
    """The first input, with the entries of the second one that matter most."""
    if len(operands.inputs) == 1:
        _as_it_is(operands, out)
        return
    divergences, threshold = _known_fusion(operands, out.device, chunk)
    start, end, result = (as_lines(x, operands.shape, -1) for x in (*operands.inputs, out))
    step = max(1, chunk // start.shape[1])
    for at in range(0, len(start), step):
        first, second = (load(x, at, at + step, out.device) for x in (start, end))
        move = second - first
        scores = move.abs().mul_(divergences[at : at + step, None].to(out.device))
        # NaN counts as important, so that it is not lost
        taken = (scores < threshold).logical_not_().to(torch.float32)
        result[at : at + step].copy_(first + move * taken)


def _known_fusion(operands: Operands, device: torch.device, chunk: int) -> tuple[Tensor, float]:
    """The divergence of every row, and the threshold; found once where the inputs are known."""
    scope, names = statistics_scope.active(), list[str | None]()
    if scope is not None:
        names = [scope.name(one, None) for one in operands.inputs]

    def rows() -> Tensor:
        return row_divergences(operands, device, chunk)

    def threshold(of: Tensor) -> float:
        return outlier_threshold(importance(operands, of, chunk), chunk=chunk)

    if scope is None or not all(names):
        return (found := rows()), threshold(found)
    name = " > ".join(map(str, names)) + f" in {list(operands.shape or ())}"
    found = scope.statistics.mapped("divergences", name, rows)
    return found, scope.statistics.number("fusion", name, lambda: threshold(found.to(device)))


def _as_it_is(operands: Operands, out: Tensor) -> None:
    """For a tensor that only one of two inputs has."""
    chunk = operands.asked_chunk
    dispatch.merge("weighted_sum", operands.inputs, None, out, floats=[[1.0]], chunk=chunk)


def row_divergences(operands: Operands, device: torch.device, chunk: int) -> Tensor:
    """How far the rows (along the last axis) of two inputs diverge, read as logits: ``(m,)``.

    KL of the second from the first, computed in float64; float32.
    """
    rows = [as_lines(x, operands.shape, -1) for x in operands.inputs]
    step = max(1, chunk // rows[0].shape[1])
    found = []
    for start in range(0, len(rows[0]), step):
        first, second = (load(x, start, start + step, device) for x in rows)
        found.append(line_divergence(second, first).to(torch.float32))
    return torch.cat(found)


def importance(operands: Operands, divergences: Tensor, chunk: int) -> Tensor:
    """Arcee Fusion's importance of every entry: ``(n,)`` float32.

    The difference of the two inputs times the divergence of their rows.
    """
    rows = [as_lines(x, operands.shape, -1) for x in operands.inputs]
    device = divergences.device
    scores = torch.empty(rows[0].shape, dtype=torch.float32, device=device)
    step = max(1, chunk // rows[0].shape[1])
    for start in range(0, len(scores), step):
        first, second = (load(x, start, start + step, device) for x in rows)
        scores[start : start + step] = (
            (second - first).abs_().mul_(divergences[start : start + step, None])
        )
    return scores.view(-1)


def line_divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(softmax of first || softmax of second) of every line, 1e-8 added to each probability.

    Args:
        first: ``(m, length)`` float32.
        second: The same.

    Returns:
        ``(m,)`` float64, at least 0.
    """
    p, q = _probabilities(first), _probabilities(second)
    return line_sums(p * (p / q).log_()).clamp_min_(0.0)


def _probabilities(logits: Tensor) -> Tensor:
    wide = logits.double()
    wide = wide.sub_(wide.amax(dim=1, keepdim=True)).exp_()
    return wide.div_(line_sums(wide)[:, None]).add_(_SPARE)


def outlier_threshold(scores: Tensor, *, chunk: int) -> float:
    """Median plus 1.5 times the distance of the quartiles, over all entries.

    The quantile q is the entry of index floor(q (n - 1)) in ascending order.
    """
    series = Series(tensor=scores, minus=None, device=scores.device)
    count = scores.numel()
    low, median, high = (
        float_of(trim(series, count - (count - 1) * part // 4, chunk=chunk).bits)
        for part in (1, 2, 3)
    )
    return median + 1.5 * (high - low)
