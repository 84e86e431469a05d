"""The native library: the same bits as torch's calls, compiled once, and not needed."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from merging.building.build import build_into
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels import chunks, dispatch
from merging.kernels.blocked_sums import Series
from merging.kernels.native import compilation, native_library
from merging.kernels.random_masks import MaskKey, numbers
from merging.kernels.torch_kernels.merge_kernels import MERGES
from merging.kernels.torch_kernels.reduction_kernels import BLOCK, LOOKS
from merging.methods.delta_functions import delta_function
from merging.methods.operands import Operands
from merging.planning.merge_plan import plan
from merging.tensor_statistics import series_sums, statistics_scope
from merging.tensor_statistics.inner_products import _norm_and_largest, gram
from merging.tensor_statistics.order_statistics import count_magnitudes, trim
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.merge_method import merge_method
from spaces.catalogue.method import DeltaFunction
from spaces.catalogue.method_catalogue import METHODS
from spaces.catalogue.shared_parameters import WEIGHT
from spaces.recipes.recipe import Merge, Recipe, merges
from spaces.sampling.draw import draw
from spaces.search_space.space import Order, Space
from tests.merging.test_dispatch import SIZES, beside, merged, noise

ROOT = Path(__file__).parents[2]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
KEY = MaskKey(seed=0, model="a", tensor="x")


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    """No test sees what another one loaded."""
    native_library.cool_down()
    yield
    native_library.cool_down()


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small ranges, so that every thread has some."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(chunks, "_WORTH_A_THREAD", BLOCK)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", list(MERGES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_merges_have_the_same_bits(name: str, dtype: torch.dtype) -> None:
    expected = [merged(name, count, dtype) for count in SIZES]
    native_library.warm_up()
    for count, whole in zip(SIZES, expected, strict=True):
        for chunk in (None, BLOCK):
            found = merged(name, count, dtype, chunk)
            assert torch.equal(found.view(torch.uint8), whole.view(torch.uint8)), count


def looked(name: str, count: int, dtype: torch.dtype) -> list[float]:
    """What a look finds in noise."""
    first, second, third = (noise(count, seed, dtype) for seed in (1, 2, 3))
    ranks = (torch.arange(count) * 7 % 77).to(torch.int16)
    tensors, floats, width = {
        "kept_norm": ([first, second], [100.0], 3),
        "ranked_norm": ([first, second, ranks], [100.0, 2e6, 1e5], 2),
        "overlaps": ([first, second, third], [0.3], 0),
        "seal": ([first.float().view(torch.int32)], [], 3),
    }[name]
    if name == "seal":
        return [*map(float, dispatch.seal(tensors[0], (0, 0x7F80)))]
    return dispatch.total(
        name,
        tensors,
        device=first.device,
        floats=floats,
        ints=lambda start: numbers(KEY, density=0.5, start=start)[:width],
    )


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", list(LOOKS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_looks_find_the_same(name: str, dtype: torch.dtype) -> None:
    expected = [looked(name, count, dtype) for count in SIZES]
    assert any(any(one) for one in expected)
    native_library.warm_up()
    assert [looked(name, count, dtype) for count in SIZES] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_is_read_as_it_is(dtype: torch.dtype) -> None:
    """All 65,536, subnormal ones too."""
    numbers_of = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    native_library.warm_up()
    found = torch.empty(1 << 16)
    dispatch.merge("weighted_sum", [numbers_of], None, found, floats=[[1.0]])
    finite = numbers_of.float().isfinite()
    expected = numbers_of.float()[finite]
    assert torch.equal(found[finite].view(torch.int32), expected.view(torch.int32))
    assert torch.equal(found.isnan(), numbers_of.isnan())
    assert torch.equal(found.isinf(), numbers_of.isinf())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_are_rounded_to_the_nearest_even_one(dtype: torch.dtype) -> None:
    words = torch.randint(
        -(1 << 31), (1 << 31) - 1, (1 << 20,), generator=torch.Generator().manual_seed(0)
    )
    edges = [65504.0, 65519.99, 65520.0, -65520.0, 65536.0, 2.0**-24, 2.0**-25, 3.4e38, 0.0, -0.0]
    wide = torch.cat(
        [
            words.to(torch.int32).view(torch.float32),
            torch.linspace(-70_000, 70_000, 50_001),
            torch.linspace(-1e-4, 1e-4, 50_001),
            torch.tensor(edges),
        ]
    )
    native_library.warm_up()
    found = torch.empty(len(wide), dtype=dtype)
    dispatch.merge("weighted_sum", [wide], None, found, floats=[[1.0]])
    expected = wide.to(dtype)
    numbers_there = ~expected.isnan()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(
        found[numbers_there].view(torch.int16), expected[numbers_there].view(torch.int16)
    )


def test_nan_and_infinity_show() -> None:
    native_library.warm_up()
    for bad in (float("nan"), float("inf")):
        for name in MERGES:
            out = beside(bad, name)
            assert not out[0].isfinite(), name
            assert out[1].isfinite(), name


def series_of(count: int, dtype: torch.dtype, *, delta: bool) -> list[Series]:
    """Noise, a tensor of few different numbers, and one of zeros; or their deltas."""
    few = (noise(count, 4, torch.float32) * 3).round() / 8
    tensors = [noise(count, 1, dtype), few.to(dtype), torch.zeros(count, dtype=dtype)]
    minus = noise(count, 2, dtype) * 0.01 if delta else None
    return [Series(tensor=one, minus=minus, device=torch.device("cpu")) for one in tensors]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_the_same(dtype: torch.dtype, delta: bool) -> None:
    for count in SIZES:
        series = series_of(count, dtype, delta=delta)
        native_library.cool_down()
        assert series_sums.products(series) is None
        grams = gram(series, chunk=BLOCK)
        norms = [_norm_and_largest(one, BLOCK) for one in series]
        native_library.warm_up()
        assert gram(series, chunk=BLOCK) == grams
        assert [_norm_and_largest(one, BLOCK) for one in series] == norms


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitudes_are_counted_the_same(dtype: torch.dtype, delta: bool) -> None:
    for count in (*SIZES, 40 * BLOCK + 5):  # few different numbers, and too many
        for one in series_of(count, dtype, delta=delta):
            native_library.cool_down()
            assert series_sums.count_magnitudes(one) is None
            expected = count_magnitudes(one)
            native_library.warm_up()
            found = series_sums.count_magnitudes(one)
            assert found is not None
            assert (found.width, found.norm) == (expected.width, expected.norm)
            for part in ("bits", "counts", "places"):
                mine, theirs = getattr(found, part), getattr(expected, part)
                assert mine.dtype == theirs.dtype, part
                assert torch.equal(mine, theirs), (part, count)


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_thresholds_are_the_same(dtype: torch.dtype, delta: bool) -> None:
    for size in (1, BLOCK + 1, 20 * BLOCK + 5):
        counts = sorted({1, (size + 1) // 2, size - size // 7, size})
        for one in series_of(size, dtype, delta=delta):
            native_library.cool_down()
            assert series_sums.select(one, 1) is None
            expected = [trim(one, count, chunk=BLOCK) for count in counts]
            native_library.warm_up()
            assert [trim(one, count, chunk=BLOCK) for count in counts] == expected
            statistics = StatisticsCache()  # of known tensors: within a bin of magnitudes
            for _ in range(2):
                with statistics_scope.scope(statistics) as scope:
                    assert scope is not None
                    scope.add(one.tensor, "tensor")
                    if one.minus is not None:
                        scope.add(one.minus, "base")
                    assert [trim(one, count, chunk=BLOCK) for count in counts] == expected
                native_library.cool_down()


def test_sums_of_what_is_not_finite() -> None:
    for bad in (float("nan"), float("inf")):
        one = Series(tensor=torch.tensor([bad, 1.0]), minus=None, device=torch.device("cpu"))
        native_library.warm_up()
        found = series_sums.norm_and_largest(one)
        assert found is not None
        assert not math.isfinite(found[0])
        products = series_sums.products([one])
        assert products is not None
        assert not math.isfinite(products[0, 0])


def test_dtypes_and_layouts_that_it_does_not_read() -> None:
    wide = [noise(2 * BLOCK, 1, torch.float64), noise(4 * BLOCK, 2, torch.bfloat16)[::2]]
    expected = torch.empty(2 * BLOCK, dtype=torch.float64)
    dispatch.merge("weighted_sum", wide, None, expected, floats=[[0.5, 2.0]])
    native_library.warm_up()
    found = torch.empty_like(expected)
    dispatch.merge("weighted_sum", wide, None, found, floats=[[0.5, 2.0]])
    assert torch.equal(found, expected)


def test_a_method_of_ones_own_runs_as_the_pass_of_its_name() -> None:
    native_library.warm_up()

    @merge_method(source="none", base=False)
    def weighted_sum(inputs: torch.Tensor, weight: Any = WEIGHT) -> torch.Tensor:
        raise AssertionError("the pass was to run")

    assert isinstance(weighted_sum.arithmetic, DeltaFunction)
    kernel = delta_function(weighted_sum, weighted_sum.arithmetic)
    inputs = [torch.tensor([1.0, 2.0]), torch.tensor([4.0, 8.0])]
    operands = Operands(inputs=inputs, per_input={"weight": [0.5, 0.25]})
    kernel(operands, out := torch.empty(2), 1 << 16)
    assert out.tolist() == [1.5, 3.0]
    native_library.cool_down()
    with pytest.raises(AssertionError, match="the pass was to run"):
        kernel(operands, out, 1 << 16)


def test_it_has_every_pass() -> None:
    found = native_library.warm_up()
    one = torch.ones(1)
    for name in MERGES:
        found.merge(name, [one], one, one.clone(), floats=[0.0] * 7, ints=[0] * 3, ranks=[one])
    for name in LOOKS:
        tensors = [one.view(torch.int32)] if name == "seal" else [one] * 3
        found.look(name, tensors, floats=[0.0] * 3, ints=[0] * 3)
    with pytest.raises(KeyError, match="no_such_pass"):
        found.merge("no_such_pass", [one], one, one, floats=[], ints=[])


PARENTS = ("math", "code", "chat")


def test_candidates_of_a_search_have_the_same_fingerprints(tiny_model: Any) -> None:
    """Trees of all methods: no kernel computes otherwise where there is the library."""
    base = tiny_model(layers=1, dtype="bfloat16", tied=True)
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, dtype="bfloat16", noise=0.002)
        for seed, name in enumerate(PARENTS, start=1)
    }
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in models.items()}
    methods = tuple(name for name in METHODS if name != "passthrough")
    space = Space(parents=PARENTS, base="base", layers=1, methods=methods, order=Order.ANY)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [draw(space, study.ask()) for _ in range(60)]

    def fingerprints() -> list[str]:
        statistics = StatisticsCache()
        return [built(one, statistics) for one in drawn]

    def built(recipe: Recipe, statistics: StatisticsCache) -> str:
        made = plan(recipe, checkpoints)
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
        return build_into(made, checkpoints, targets, statistics=statistics)

    expected = fingerprints()
    native_library.warm_up()
    assert fingerprints() == expected
    used = {node.method for one in drawn for node in merges(one.root) if isinstance(node, Merge)}
    assert used == set(methods)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "merge-search"


def test_compiled_once_and_anew_if_it_is_broken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Path] = []
    real = compilation._compile

    def counted(file: Path) -> None:
        ran.append(file)
        real(file)

    monkeypatch.setattr(compilation, "_compile", counted)
    folder.mkdir(parents=True)
    compilation.kept().write_bytes(b"cut off")
    assert not native_library.load()
    for _ in range(2):
        native_library.warm_up()
        native_library.cool_down()
    assert len(ran) == 1
    assert native_library.load()
    assert list(folder.glob("*.so")) == [compilation.kept()]
    assert not [one for one in folder.iterdir() if one.is_dir()]  # no drafts are left


@pytest.mark.parametrize("spoilt", ["cut off", "zeroed", "longer", "no checksum"])
def test_what_is_not_whole_is_compiled_anew(folder: Path, spoilt: str) -> None:
    """A library that is cut off ends the process with a bus error once it is used."""
    native_library.warm_up()
    native_library.cool_down()
    file = compilation.kept()
    whole = file.read_bytes()
    for share in (0.01, 0.3, 0.5, 0.9) if spoilt in ("cut off", "zeroed") else (1.0,):
        at = int(share * len(whole))
        file.unlink()  # this process has it mapped
        file.write_bytes(
            {
                "cut off": whole[:at],
                "zeroed": whole[:at] + bytes(2000) + whole[at + 2000 :],
                "longer": whole + b"\0",
                "no checksum": whole[: -compilation._SUM_BYTES],
            }[spoilt]
        )
        assert not native_library.load()
    native_library.warm_up()
    assert torch.equal(merged("weighted_sum", 10, torch.float32), without("weighted_sum"))
    assert native_library.load()


@pytest.mark.parametrize("mode", [0o660, 0o606])
def test_a_library_that_others_may_write_is_compiled_anew(folder: Path, mode: int) -> None:
    native_library.warm_up()
    native_library.cool_down()
    compilation.kept().chmod(mode)
    assert not native_library.load()
    native_library.warm_up()
    assert compilation.kept().stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_write_is_closed_to_them(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    native_library.warm_up()
    assert folder.stat().st_mode & 0o777 == 0o755
    assert compilation.kept().is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_not_loaded(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    native_library.warm_up()
    native_library.cool_down()
    os.chown(compilation.kept(), 65534, -1)
    assert not native_library.load()
    os.chown(folder, 65534, -1)
    with caplog.at_level(logging.WARNING, logger="merging.kernels.native.native_library"):
        native_library.warm_up()
    assert "expected an owner that is this user" in caplog.text
    assert native_library.library() is not None  # from a folder of its own


def test_processes_that_start_together_compile_once(folder: Path, tmp_path: Path) -> None:
    """One compiles while the others wait."""
    compiler = tmp_path / "counting"
    compiler.write_text(f'#!/bin/sh\necho >> {tmp_path}/ran\nexec c++ "$@"\n', encoding="utf-8")
    compiler.chmod(0o755)
    code = (
        "from merging.kernels.native import native_library as native\n"
        "native.warm_up(); assert native.library()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "CXX": str(compiler), "PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    assert [one.wait(timeout=300) for one in started] == [0, 0, 0]
    assert (tmp_path / "ran").read_text(encoding="utf-8") == "\n"
    assert len(list(folder.glob("*.so"))) == 1


def test_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    native_library.warm_up()
    assert torch.equal(merged("weighted_sum", 10, torch.float32), without("weighted_sum"))
    assert not folder.exists()


def without(name: str) -> torch.Tensor:
    native_library.cool_down()
    return merged(name, 10, torch.float32)


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", r"expected a C\+\+ compiler, found none \(no-such-compiler\)"),
        ("false", r"cannot be compiled here \(.*false failed\)"),
    ],
)
def test_without_a_compiler(
    compiler: str,
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, and everything works as before."""
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(native_library.NativeError, match=said):
        native_library.warm_up()
    with caplog.at_level(logging.WARNING, logger="merging.kernels.native.native_library"):
        assert not native_library.try_warm_up()
    assert [one.name for one in caplog.records] == ["merging.kernels.native.native_library"]
    assert native_library.library() is None
    merged("weighted_sum", 100, torch.float32)
    assert list(folder.glob("*.so")) == []


def test_a_processor_the_compiler_cannot_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "_TUNED", ("-march=of-another-world",))
    native_library.warm_up()
    assert len(list(folder.glob("*.so"))) == 1
