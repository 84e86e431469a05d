"""Passes: the native library and torch's calls give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.building.build import build_into, write_model
from merging.building.fingerprint import fingerprint_checkpoint
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels import dispatch
from merging.kernels.chunks import spans
from merging.kernels.dispatch import merge, seal
from merging.kernels.native import native_library
from merging.kernels.random_masks import MaskKey, keep, numbers
from merging.kernels.torch_kernels import mask_kernels
from merging.kernels.torch_kernels.merge_kernels import AT_ONCE, MERGES
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.planning.merge_plan import plan
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.recipes.recipe import Recipe

CPU = torch.device("cpu")
SIZES = (1, BLOCK - 1, BLOCK, 2 * BLOCK, 5 * BLOCK + 13)


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    """No test sees what another one loaded."""
    native_library.cool_down()
    yield
    native_library.cool_down()


def noise(count: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    made = torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(dtype)
    made[::7] = 0.0
    made[3::11] *= -0.0
    return made


FLOATS = [[0.8, 0.8], [0.5, -1.25], [0.5, -1.25], [0.3, 0.4], [0.3, 0.5], [1.5, 1.9], [1.5, 1.8]]


def ints_of(name: str, start: int) -> list[tuple[int, ...]]:
    """Numbers that make every branch count: cutoffs, or masks."""
    if name.startswith(("dropped", "ranked")):
        step, offset, limit = numbers(
            MaskKey(seed=0, model="a", tensor="x"), density=0.5, start=start
        )
        if name.startswith("dropped"):
            return [(step, step), (offset, offset + 1), (limit, 1 << 28)]
        return [(step,) * 2, (offset,) * 2]
    return [(max(0, cutoff - start),) * 2 for cutoff in (BLOCK + 3, BLOCK - 7)]


def merged(
    name: str,
    count: int,
    dtype: torch.dtype,
    chunk: int | None = None,
    *,
    device: torch.device = CPU,
    factor: float = 1.0,
) -> torch.Tensor:
    """A pass over two inputs and a base."""
    one, two, base = [
        (noise(count, seed, dtype) * factor).to(device=device, dtype=dtype) for seed in (1, 2, 3)
    ]
    ranks = [(torch.arange(count) * step % 77).to(torch.int16) for step in (7, 5)]
    out = torch.empty(count, dtype=dtype, device=device)
    floats = FLOATS if not name.startswith("ranked") else [*FLOATS[:3], [2e6, 4e6], [1e5, 7e4]]
    merge(
        name,
        [one, two],
        base,
        out,
        floats=floats,
        ints=lambda start: ints_of(name, start),
        ranks=ranks if name.startswith("ranked") else (),
        chunk=chunk,
    )
    return out.cpu()


@pytest.mark.parametrize("name", list(MERGES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_chunks_change_nothing(name: str, dtype: torch.dtype) -> None:
    for count in SIZES:
        whole = merged(name, count, dtype, chunk=1 << 20).view(torch.uint8)
        for chunk in (1, 3 * BLOCK, None):
            assert torch.equal(merged(name, count, dtype, chunk).view(torch.uint8), whole)


@pytest.mark.parametrize("name", list(AT_ONCE))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_inputs_at_once_and_one_by_one(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = [merged(name, count, dtype) for count in SIZES]
    monkeypatch.setattr(dispatch, "_FEW", 0)
    for count, found in zip(SIZES, at_once, strict=True):
        one_by_one = merged(name, count, dtype)
        assert torch.equal(found.view(torch.uint8), one_by_one.view(torch.uint8))


def test_mixed_dtypes_are_read_as_float32() -> None:
    inputs = [noise(50, 1, torch.bfloat16), noise(50, 2, torch.float64)]
    out = torch.empty(50, dtype=torch.float64)
    merge("weighted_sum", inputs, None, out, floats=[[0.5, 2.0]])
    wide = [x.float() for x in inputs]
    assert torch.equal(out, (wide[0] * 0.5 + wide[1] * 2.0).double())


@pytest.mark.parametrize("density", [2**-24, 0.1, 0.5, 1.0])
def test_masks_are_those_of_the_masks_module(density: float) -> None:
    key = MaskKey(seed=3, model="math", tensor="x")
    mask = torch.tensor(numbers(key, density=density), dtype=torch.int32)
    found = mask_kernels.kept(torch.arange(100_000, dtype=torch.int32), mask)
    assert torch.equal(found, keep(key, density=density, start=0, stop=100_000))


def beside(bad: float, name: str) -> torch.Tensor:
    """What a pass makes of an entry of a number, and of one of ones."""
    out = torch.empty(2)
    ranks = [torch.zeros(2, dtype=torch.int16)] * 2
    merge(
        name,
        [torch.tensor([bad, 1.0]), torch.tensor([1.0, 1.0])],
        torch.zeros(2),
        out,
        floats=[[1.0], [0.5], [0.5], [0.1], [0.1], [2.0], [2.0]],
        ints=lambda _: [[1], [0], [0]],
        ranks=ranks if name.startswith("ranked") else (),
    )
    return out


def test_nan_and_infinity_always_show() -> None:
    for bad in (float("nan"), float("inf")):
        for name in MERGES:
            out = beside(bad, name)
            assert not out[0].isfinite(), name
            assert out[1].isfinite(), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 1, 4999])
def test_seal_sees_what_is_not_finite(value: float, at: int) -> None:
    words = torch.zeros(5000, dtype=torch.float32)
    assert seal(words.view(torch.int32), (0, 0x7F80))[1] != 0x7F80
    words[at] = value
    assert seal(words.view(torch.int32), (0, 0x7F80))[1] == 0x7F80


def test_spans_cover_everything_once() -> None:
    assert list(spans(2 * BLOCK + 1, 1)) == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, 8193)]
    assert list(spans(0, 1)) == []


TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.5},
}
TREE = {
    "method": "slerp",
    "base": TIES,
    "sources": [{"of": TIES}, {"of": "math"}],
    "parameters": {"t": 0.4},
}
DARE = {
    "method": "dare_ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.5},
}


@pytest.fixture(scope="module")
def family(tiny_model: Any) -> dict[str, Checkpoint]:
    """Models whose matrices are large enough for more than one block."""
    base = tiny_model(hidden=96, layers=1, dtype="bfloat16", tied=True)
    made = {"base": base}
    for seed, name in enumerate(("math", "code"), start=1):
        made[name] = tiny_model(base=base, seed=seed, dtype="bfloat16", noise=0.002)
    return {name: Checkpoint.open(str(at), name=name) for name, at in made.items()}


@pytest.mark.parametrize("merge", [DARE, TREE], ids=["dare", "tree"])
def test_one_fingerprint_natively_or_not(
    merge: Any, family: dict[str, Checkpoint], tmp_path: Path
) -> None:
    made = plan(Recipe.from_dict({"merge": merge, "dtype": "bfloat16"}), family)

    def built(**options: Any) -> str:
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
        return build_into(made, family, targets, **options)

    expected = built()
    threads = torch.get_num_threads()
    native_library.warm_up()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for chunk in (None, 2 * BLOCK, 1 << 20):
                assert built(chunk=chunk) == expected
            assert built(statistics=StatisticsCache(tmp_path / "statistics")) == expected
            out = tmp_path / f"out{count}"
            assert write_model(made, family, out) == expected
            assert fingerprint_checkpoint(Checkpoint.open(str(out), name="out")) == expected
    finally:
        torch.set_num_threads(threads)


def test_shared_sub_trees_are_computed_once(
    family: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    from merging.building import build

    ran: list[str] = []
    real = build.combine

    def counted(method: str, *args: Any, **options: Any) -> torch.Tensor:
        ran.append(method)
        return real(method, *args, **options)

    monkeypatch.setattr(build, "combine", counted)
    made = plan(Recipe.from_dict({"merge": TREE}), family)
    for _ in build.tensors(made, family):
        pass
    assert ran.count("ties") == ran.count("slerp") == len(made.jobs)


def test_scope_names_only_what_it_was_given() -> None:
    tensor, base = torch.ones(4), torch.zeros(4)
    assert statistics_scope.active() is None
    with statistics_scope.scope(StatisticsCache()) as scope:
        assert scope is not None
        scope.add(tensor, "a")
        assert scope.name(tensor, None) == "a"
        assert scope.name(tensor, base) is None
        scope.add(base, "b")
        assert scope.name(tensor, base) == "a - b"
        assert scope.name(tensor[:2], base) is None
        scope.clear()
        assert scope.name(tensor, None) is None
    assert statistics_scope.active() is None
