"""The further methods on single tensors: vectors worked by hand, and what the formulas promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.kernels import random_masks
from merging.kernels.blocked_sums import Series
from merging.kernels.keep_rules import Ranked
from merging.kernels.random_masks import MaskKey
from merging.kernels.torch_kernels import entrywise_kernels
from merging.kernels.torch_kernels.mask_kernels import below
from merging.methods import entrywise_methods, sparsification
from merging.methods.method_registry import Operands, combine
from merging.methods.operands import as_lines, from_lines
from spaces.catalogue import linear_coefficients
from spaces.catalogue.method import Combination
from spaces.catalogue.method_catalogue import METHODS

CPU = torch.device("cpu")


def made(
    method: str,
    inputs: Sequence[Sequence[float]],
    *,
    base: Sequence[float] | None = None,
    each: dict[str, list[float]] | None = None,
    **shared: Any,
) -> list[float]:
    operands = Operands(
        inputs=[torch.tensor(values) for values in inputs],
        base=None if base is None else torch.tensor(base),
        per_input=each or {},
        shared=shared,
        masks=[MaskKey(seed=0, model=str(at), tensor="x") for at in range(len(inputs))],
    )
    result: list[float] = combine(method, operands).tolist()
    return result


ZERO = [0.0, 0.0]
WEIGHTS = {"weight": [1.0, 1.0]}
TEN = [float(n) for n in range(1, 11)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (made("nuslerp", [[2.0, 0.0], [0.0, 1.0]], each=WEIGHTS), [1.4142, 0.7071]),
        (made("multislerp", [[2.0, 0.0], [0.0, 1.0]], each=WEIGHTS), [1.0607, 1.0607]),
        (made("karcher", [[2.0, 0.0], [0.0, 1.0]]), [1.0607, 1.0607]),
        (made("model_stock", [[1.0, 0.0], [0.5, 0.8660254]], base=ZERO), [0.5, 0.2887]),
        (made("nearswap", [ZERO, [0.01, 1.0]], t=0.1), [0.01, 0.1]),
        (made("sce", [[1.0, -1.0], [3.0, 1.0]], base=ZERO), [2.6667, 1.0]),
        (made("ram", [[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]], base=[0.0] * 3), [1.0, 3.0, 3.0]),
        (made("ramplus_tl", [[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]], base=[0.0] * 3), [1.02, 3.06, 3.0]),
        (
            made(
                "breadcrumbs",
                [TEN],
                base=[0.0] * 10,
                each={"weight": [1.0], "density": [0.6], "gamma": [0.2]},
            ),
            [0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0],
        ),
        (
            made(
                "breadcrumbs",
                [TEN],
                base=[0.0] * 10,
                each={"weight": [1.0], "density": [0.6], "gamma": [0.0]},
            ),
            [0.0] * 4 + TEN[4:],
        ),
        (
            made(
                "breadcrumbs",
                [TEN],
                base=[0.0] * 10,
                each={"weight": [1.0], "density": [0.6], "gamma": [0.9]},
            ),
            [*TEN[:6], 0.0, 0.0, 0.0, 0.0],
        ),
    ],
)
def test_hand_worked(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected, abs=5e-5)


@given(data=st.data(), count=st.integers(2, 5))
def test_multislerp_needs_no_move_on_the_sphere(data: st.DataObject, count: int) -> None:
    """The weighted mean of the tangents at the weighted mean is 0, whatever the inputs."""
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(data.draw(SEEDS)))
    weights = data.draw(st.lists(st.floats(0.1, 2.0), min_size=count, max_size=count))
    inputs = inputs.double()
    units = inputs / inputs.norm(dim=1, keepdim=True)
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    mean = shares @ units
    direction = mean / mean.norm()
    tangents = units - (units @ direction)[:, None] * direction
    assert float((shares @ tangents).norm()) < 1e-12
    found = linear_coefficients.multislerp_coefficients(
        (inputs @ inputs.T).tolist(), weights=weights, normalize=True, eps=1e-8
    )
    expected = direction * (shares @ inputs.norm(dim=1))
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64) @ inputs, expected,
                               rtol=1e-6, atol=1e-6)  # fmt: skip


SEEDS = st.integers(0, 2**31)


@given(seed=SEEDS, count=st.integers(2, 5))
def test_karcher_is_where_the_ways_to_the_inputs_balance(seed: int, count: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    centre = torch.randn(8, generator=noise, dtype=torch.float64)
    inputs = centre + torch.randn(count, 8, generator=noise, dtype=torch.float64) * 0.3
    gram = (inputs @ inputs.T).tolist()
    found = linear_coefficients.karcher_coefficients(gram, max_iter=100, tol=1e-7)
    mean = torch.tensor(found, dtype=torch.float64) @ inputs
    assert float(mean.norm()) == pytest.approx(float(inputs.norm(dim=1).mean()))
    direction = mean / mean.norm()
    units = inputs / inputs.norm(dim=1, keepdim=True)
    cosines = (units @ direction).clamp(-1, 1)
    ways = (cosines.acos() / (1 - cosines**2).sqrt().clamp_min(1e-12))[:, None]
    assert float((ways * (units - cosines[:, None] * direction)).mean(dim=0).norm()) < 1e-6


@pytest.mark.parametrize(
    "method", [name for name, one in METHODS.items() if isinstance(one.arithmetic, Combination)]
)
def test_coefficients_of_what_is_not_finite_keep_it(method: str) -> None:
    """A NaN must reach the result, and no coefficient may be one for another reason."""
    gram = [[math.nan, 1.0], [1.0, math.inf]]
    arithmetic = METHODS[method].arithmetic
    assert isinstance(arithmetic, Combination)
    found = arithmetic.of(gram, {"weight": [1.0, 1.0]}, {"t": 0.3})
    assert found == (1.0, 1.0)


@given(scale=st.floats(1e-12, 1e6), t=st.floats(-0.5, 1.5))
def test_two_arcs_agree(scale: float, t: float) -> None:
    """nuslerp is slerp at the share of the second weight, but for nearly parallel tensors."""
    gram = [[scale**2, 0.3 * scale**2], [0.3 * scale**2, scale**2]]
    if scale > 1e-6:  # they differ in what counts as no norm
        slerp = linear_coefficients.slerp_coefficients(gram, t=t)
        assert slerp == pytest.approx(
            linear_coefficients.nuslerp_coefficients(gram, weights=(1 - t, t))
        )


def test_rows_have_coefficients_of_their_own() -> None:
    base = torch.zeros(2, 2)
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.5, 0.8660254], [1.0, 0.0]])
    operands = Operands(inputs=[first, second], base=base, shared={"filter_wise": True})
    expected = torch.tensor([[0.5, 0.2887], [1.0, 0.0]])
    torch.testing.assert_close(combine("model_stock", operands), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4)])
def test_lines_and_back(shape: tuple[int, ...], axis: int) -> None:
    flat = torch.arange(float(math.prod(shape)))
    lines = as_lines(flat, shape, axis)
    assert lines.dim() == 2
    assert torch.equal(from_lines(lines, shape, axis), flat)
    if len(shape) > 1:
        assert torch.equal(lines[0], flat.view(shape).movedim(axis, -1).reshape(-1, shape[axis])[0])
    if axis != 1 or len(shape) < 3:
        assert lines.data_ptr() == flat.data_ptr()


@settings(max_examples=60)
@given(
    count=st.integers(1, 300),
    density=st.floats(1e-4, 0.999),
    gamma=st.floats(0, 1),
    levels=st.sampled_from([1, 3, 10**6]),
)
def test_breadcrumbs_keeps_the_middle(
    count: int, density: float, gamma: float, levels: int
) -> None:
    """Exactly floor(density n) entries, below floor(gamma n) larger ones if there are so many."""
    noise = torch.Generator().manual_seed(count)
    delta = torch.randint(1, levels + 1, (count,), generator=noise).float()
    series = Series(tensor=delta, minus=None, device=CPU)
    kept = sparsification.middle(series, density=density, gamma=gamma, chunk=1).keep(delta, 0)
    wanted, dropped = int(density * count), int(gamma * count)
    assert int(kept.sum()) == wanted
    assert set(kept.tolist()) <= {0.0, 1.0}
    dropped = min(dropped, count - wanted)
    ordered = delta.sort(descending=True).values
    assert delta[kept > 0].sort(descending=True).values.tolist() == (
        ordered[dropped : dropped + wanted].tolist()
    )


@pytest.mark.parametrize("shape", [(200,), (20, 30), (4, 30, 5)])
def test_ranks_within_rows(shape: tuple[int, ...]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    series = Series(tensor=delta.flatten(), minus=None, device=CPU)
    ranks, length = sparsification.row_ranks(series, shape, chunk=7)
    axis = min(1, len(shape) - 1)
    assert length == shape[axis]
    expected = delta.abs().argsort(dim=axis).argsort(dim=axis)
    assert torch.equal(ranks.view(shape).long(), expected)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.3, 0.2), (0.7, 0.0)])
def test_della_keeps_large_entries_more_often(density: float, epsilon: float) -> None:
    rows, length = 300, 200
    delta = torch.randn(rows, length, generator=torch.Generator().manual_seed(1)) * 0.01
    operands = Operands(
        inputs=[delta],
        base=torch.zeros(rows, length),
        per_input={"weight": [1.0], "density": [density], "epsilon": [epsilon]},
        shared={"rescale": True},
        masks=[MaskKey(seed=7, model="math", tensor="x")],
    )
    found = combine("della_linear", operands)
    norms = float(found.double().abs().sum() / delta.double().abs().sum())
    assert norms == pytest.approx(1.0, abs=1e-4)
    order = delta.abs().argsort(dim=1)
    kept = (found != 0).double().gather(1, order)
    sigma = math.sqrt(0.25 / kept.numel())
    assert abs(float(kept.mean()) - density) < 4 * sigma
    expected = density - epsilon + 2 * epsilon * torch.arange(length) / (length - 1)
    by_rank = kept.mean(dim=0)
    assert float((by_rank - expected).abs().max()) < 5 * math.sqrt(0.25 / rows)
    lower, upper = by_rank[: length // 2].mean(), by_rank[length // 2 :].mean()
    assert abs(float(upper - lower) - epsilon) < 8 * sigma


def test_della_and_dare_share_their_numbers() -> None:
    """With no range of probabilities DELLA is DARE: the same seed drops the same entries."""
    key = MaskKey(seed=3, model="a", tensor="x")
    ranks = torch.arange(5000, dtype=torch.int32)
    ranked = Ranked(key=key, ranks=ranks, length=5000, density=0.25, epsilon=0.0)
    kept = ranked.keep(torch.ones(5000), 0)
    assert torch.equal(kept, random_masks.keep(key, density=0.25, start=0, stop=5000))


def test_masks_by_rank_are_exact_for_long_rows() -> None:
    """Products of ranks and probabilities exceed 32 bits."""
    length = 1 << 30
    numbers = torch.tensor([0, (1 << 24) - 1, 1 << 22, 3 << 22], dtype=torch.int32)
    ranks = torch.tensor([0, length - 1, length // 2, length // 2], dtype=torch.int32)
    ranked = Ranked(
        key=MaskKey(seed=0, model="a", tensor="x"),
        ranks=ranks,
        length=length,
        density=0.5,
        epsilon=0.25,
    )
    kept = below(numbers, ranks, torch.tensor(ranked.bounds))
    assert kept.tolist() == [True, False, True, False]


@given(seed=SEEDS, count=st.integers(1, 6))
def test_equal_deltas_have_no_variance(seed: int, count: int) -> None:
    delta = torch.randn(100, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(entrywise_kernels.variance([delta] * count), torch.zeros(100))


def test_sce_shares_of_small_deltas_are_equal() -> None:
    assert entrywise_methods.sce_shares([1e-8, 3e-8]) == [0.5, 0.5]
    assert entrywise_methods.sce_shares([1.0, 3.0]) == [0.25, 0.75]


def test_ram_factors() -> None:
    found = entrywise_methods.ram_factors(
        [0, 10, 10, 0], [5, 100, 0, 0], r=0.5, alpha=0.2, epsilon=1e-5
    )
    assert found == pytest.approx([1.0, 1.05, 1.1, 1.0])


def test_fusion_takes_outliers_only() -> None:
    """One entry differs much, and with it its row as a whole."""
    noise = torch.Generator().manual_seed(0)
    base = torch.randn(64, 64, generator=noise)
    other = base + torch.randn(64, 64, generator=noise) * 0.01
    other[5, 7] += 3.0
    found: Tensor = combine("arcee_fusion", Operands(inputs=[base, other]))
    taken = (found != base).float().mean(dim=1)
    assert bool(found[5, 7] == other[5, 7])
    assert float(taken[5]) > 0.9
    assert float(taken[torch.arange(64) != 5].mean()) < 0.15
