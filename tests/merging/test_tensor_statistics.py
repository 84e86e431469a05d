"""Statistics over a tensor in pieces: exact counts, and sums in one fixed order."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.kernels.blocked_sums import Series
from merging.kernels.chunks import spans
from merging.kernels.keep_rules import Dropped, Ranked, Thinning
from merging.kernels.random_masks import MaskKey
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.tensor_statistics.inner_products import gram, norm_ratios
from merging.tensor_statistics.order_statistics import trim

CPU = torch.device("cpu")


def series(tensor: torch.Tensor, minus: torch.Tensor | None = None) -> Series:
    return Series(tensor=tensor, minus=minus, device=CPU)


@settings(max_examples=100)
@given(
    values=st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=200),
    share=st.floats(0, 1),
)
def test_threshold_is_the_kth_largest(values: list[float], share: float) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    count = max(1, int(share * len(values)))
    found = trim(series(tensor), count, chunk=1)
    threshold = torch.tensor([found.bits], dtype=torch.int32).view(torch.float32)
    assert threshold.item() == tensor.abs().sort(descending=True).values[count - 1].item()
    if found.bits:
        assert int(found.keep(tensor, 0).sum()) == count


def test_equal_entries_over_several_chunks() -> None:
    tensor = torch.ones(5 * BLOCK)
    found = trim(series(tensor), 2 * BLOCK + 5, chunk=BLOCK)
    assert found.cutoff == 2 * BLOCK + 5
    kept = torch.cat([found.keep(tensor[a:b], a) for a, b in spans(tensor.numel(), BLOCK)])
    assert kept.tolist() == [1.0] * found.cutoff + [0.0] * (tensor.numel() - found.cutoff)


def test_zeros_at_the_threshold_are_kept() -> None:
    found = trim(series(torch.tensor([0.0, 3.0, 0.0])), 2, chunk=BLOCK)
    assert (found.bits, found.cutoff) == (0, 3)


@settings(max_examples=50)
@given(count=st.integers(1, 3 * BLOCK), chunk=st.integers(1, 4 * BLOCK))
def test_spans_cover_everything_once(count: int, chunk: int) -> None:
    found = list(spans(count, chunk))
    assert found[0][0] == 0
    assert found[-1][1] == count
    assert all(a[1] == b[0] and a[1] % BLOCK == 0 for a, b in itertools.pairwise(found))


def test_inner_products_are_right_and_cut_independent() -> None:
    noise = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3 * BLOCK + 11, generator=noise) for _ in range(2))
    (aa, ab), (ba, bb) = found = gram([series(a), series(b)], chunk=BLOCK)
    exact = [math.fsum((x.double() * y.double()).tolist()) for x, y in ((a, a), (a, b), (b, b))]
    assert [aa, ab, bb] == pytest.approx(exact, rel=1e-13)
    assert ab == ba
    assert found == gram([series(a), series(b)], chunk=100 * BLOCK)


def test_norm_ratio_does_not_depend_on_chunks() -> None:
    tensor = torch.randn(3 * BLOCK + 11, generator=torch.Generator().manual_seed(0))
    drop = Dropped(key=MaskKey(seed=0, model="a", tensor="x"), density=0.25)
    found = norm_ratios([series(tensor)], [drop], chunk=BLOCK)
    assert found == norm_ratios([series(tensor)], [drop], chunk=10 * BLOCK)
    assert found == pytest.approx([4.0], rel=0.1)


@pytest.mark.parametrize("count", [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK + 11])
@pytest.mark.parametrize("ranked", [False, True])
def test_norms_together_and_one_by_one(count: int, ranked: bool) -> None:
    noise = torch.Generator().manual_seed(count)
    base = torch.randn(count, generator=noise)
    deltas, thinnings = [], list[Thinning | None]()
    for at, name in enumerate("abcd"):
        deltas.append(series((at + 1) * torch.randn(count, generator=noise), base))
        key = MaskKey(seed=0, model=name, tensor="x")
        ranks = torch.randperm(count, generator=noise).to(torch.int32)
        thinnings.append(
            Ranked(key=key, ranks=ranks, length=count, density=0.4 + at / 10, epsilon=0.1)
            if ranked
            else Dropped(key=key, density=0.4 + at / 10)
        )
    thinnings[2] = None
    found = norm_ratios(deltas, thinnings, chunk=BLOCK)
    pairs = zip(deltas, thinnings, strict=True)
    assert found == [norm_ratios([a], [b], chunk=BLOCK)[0] for a, b in pairs]
    assert found[2] == 1.0
    assert count < BLOCK or min(found[0], found[1], found[3]) > 1.2


def test_norm_of_what_is_not_finite_is_not_a_number() -> None:
    drop = Dropped(key=MaskKey(seed=0, model="a", tensor="x"), density=1.0)
    found = norm_ratios([series(torch.tensor([1.0, math.inf, math.nan]))], [drop], chunk=BLOCK)
    assert math.isnan(found[0])


@pytest.mark.parametrize("order", ["random", "ascending", "blocks"])
@pytest.mark.parametrize("share", [1e-6, 0.001, 0.3, 0.999, 1.0])
def test_threshold_of_a_large_tensor(order: str, share: float) -> None:
    """Found from a sample, or without it where the sample misleads: exact either way."""
    tensor = torch.randn(200_003, generator=torch.Generator().manual_seed(0))
    if order == "ascending":
        tensor = tensor.abs().sort().values
    if order == "blocks":  # every sixth entry, which the sample takes, is unlike the others
        tensor[::6] *= 1e-6
    count = max(1, int(share * tensor.numel()))
    found = trim(series(tensor), count, chunk=BLOCK)
    expected = tensor.abs().sort(descending=True).values[count - 1 : count].view(torch.int32)
    assert found.bits == int(expected)
    assert int(found.keep(tensor, 0).sum()) == count
