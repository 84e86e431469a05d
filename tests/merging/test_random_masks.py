"""Counter-based masks: a pure function of key and index, and good enough to be called random."""

from __future__ import annotations

import hashlib
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.kernels.random_masks import MaskKey, keep, uniform

KEY = MaskKey(seed=0, model="math", tensor="model.layers.0.mlp.up_proj.weight")


PINNED = [1341162, 9549119, 6138209, 7866443]
PINNED_DIGEST = "7ae9343c2bde2f25"


def test_pinned() -> None:
    """Masks are part of what a recipe means: a change of these bits breaks saved winners."""
    numbers = uniform(KEY, start=0, stop=100_000)
    assert numbers[:4].tolist() == PINNED
    digest = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
    assert digest[:16] == PINNED_DIGEST


@settings(max_examples=50)
@given(start=st.integers(0, 2**34), length=st.integers(1, 3000), cut=st.integers(0, 3000))
def test_any_cut(start: int, length: int, cut: int) -> None:
    cut = min(cut, length)
    whole = uniform(KEY, start=start, stop=start + length)
    first = uniform(KEY, start=start, stop=start + cut)
    second = uniform(KEY, start=start + cut, stop=start + length)
    assert torch.equal(whole, torch.cat((first, second)))


def test_across_the_period() -> None:
    edge = 2**32
    whole = uniform(KEY, start=edge - 100, stop=edge + 100)
    assert torch.equal(whole[:100], uniform(KEY, start=edge - 100, stop=edge))
    assert torch.equal(whole[100:], uniform(KEY, start=edge, stop=edge + 100))
    assert not torch.equal(whole[100:], uniform(KEY, start=0, stop=100))


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.73, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_fraction(density: float, seed: int) -> None:
    count = 200_000
    key = MaskKey(seed=seed, model="code", tensor="x")
    kept = keep(key, density=density, start=0, stop=count).mean().item()
    assert abs(kept - density) < 4 * math.sqrt(density * (1 - density) / count)


@pytest.mark.parametrize(("density", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_ends(density: float, expected: float) -> None:
    assert keep(KEY, density=density, start=0, stop=5000).mean().item() == expected


def test_nested_in_density() -> None:
    masks = [keep(KEY, density=d, start=0, stop=50_000) for d in (0.1, 0.4, 0.41, 0.9)]
    for smaller, larger in itertools.pairwise(masks):
        assert bool((larger >= smaller).all())


def test_uniform() -> None:
    """Chi-square over 256 bins of the high bits, and of the low ones: 4 sigma around 255."""
    numbers = uniform(KEY, start=12_345, stop=12_345 + 1_000_000)
    for bits in (numbers >> 16, numbers & 255):
        counts = torch.bincount(bits, minlength=256).double()
        expected = 1_000_000 / 256
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi - 255) < 4 * math.sqrt(2 * 255)


@pytest.mark.parametrize(
    "other",
    [
        MaskKey(seed=1, model=KEY.model, tensor=KEY.tensor),
        MaskKey(seed=0, model="code", tensor=KEY.tensor),
        MaskKey(seed=0, model=KEY.model, tensor="model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_keys_are_independent(other: MaskKey) -> None:
    count = 400_000
    first = keep(KEY, density=0.5, start=0, stop=count)
    second = keep(other, density=0.5, start=0, stop=count)
    for shift in range(-3, 4):
        agree = (first == second.roll(shift)).double().mean().item()
        assert abs(agree - 0.5) < 5 * math.sqrt(0.25 / count)


@pytest.mark.parametrize("lag", [1, 2, 64, 1000, 4096])
def test_neighbours_are_independent(lag: int) -> None:
    mask = keep(KEY, density=0.5, start=0, stop=400_000)
    agree = (mask[lag:] == mask[:-lag]).double().mean().item()
    assert abs(agree - 0.5) < 5 * math.sqrt(0.25 / (400_000 - lag))
