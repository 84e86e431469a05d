"""Statistics that are kept: exact for every count, found again, and never trusted blindly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.building.build import build_into
from merging.building.output_checks import NonFiniteError
from merging.building.precompute import Needs, prepare
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.blocked_sums import Series
from merging.kernels.keep_rules import Dropped
from merging.kernels.random_masks import MaskKey
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.planning.merge_plan import plan
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.inner_products import gram, norm_ratios
from merging.tensor_statistics.order_statistics import count_magnitudes, trim
from merging.tensor_statistics.statistics_cache import PLACE_STEP, Magnitudes, StatisticsCache
from spaces.recipes.recipe import Recipe

CPU = torch.device("cpu")
TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.4},
}
SLERP = {
    "method": "slerp",
    "base": "math",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"t": 0.3},
}


def delta(dtype: torch.dtype, count: int = 5 * BLOCK + 17) -> Series:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(count, generator=generator).mul_(0.02).to(dtype)
    tuned = (base.float() + torch.randn(count, generator=generator) * 0.002).to(dtype)
    return Series(tensor=tuned, minus=base, device=CPU)


def made(seed: float) -> Magnitudes:
    return Magnitudes(
        bits=torch.tensor([9, 5], dtype=torch.int32),
        counts=torch.tensor([1, 4]),
        places=torch.empty(0, dtype=torch.int64),
        width=1,
        norm=seed,
    )


def never() -> Any:
    raise AssertionError("computed again")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_thresholds_are_the_same_known_or_not(dtype: torch.dtype) -> None:
    series = delta(dtype)
    total = series.tensor.numel()
    counts = (1, 2, BLOCK, total // 3, total // 2, total - 1, total)
    expected = [trim(series, count, chunk=BLOCK) for count in counts]
    with statistics_scope.scope(StatisticsCache()) as scope:
        assert scope is not None
        scope.add(series.tensor, "math")
        assert series.minus is not None
        scope.add(series.minus, "base")
        assert [trim(series, count, chunk=BLOCK) for count in counts] == expected
        assert scope.statistics.computed == 1


@pytest.mark.parametrize("chunk", [BLOCK, 10**6])
def test_magnitudes_are_counted_exactly(chunk: int) -> None:
    series = delta(torch.bfloat16, 40 * BLOCK)
    found = count_magnitudes(series, chunk=chunk)
    sizes = series.part(0, series.tensor.numel()).abs().view(torch.int32)
    values, counts = sizes.unique(return_counts=True)
    assert found.width == 1
    assert torch.equal(found.bits, values.flip(0))
    assert torch.equal(found.counts, counts.flip(0).cumsum(0))


def test_too_many_values_are_counted_in_bins() -> None:
    series = delta(torch.float32, 40 * BLOCK)
    found = count_magnitudes(series, chunk=BLOCK)
    assert found.width == 1 << 16
    assert len(found.bits) < 1 << 15
    assert int(found.counts[-1]) == series.tensor.numel()


def test_norms_and_products_are_the_same_known_or_not() -> None:
    series = delta(torch.bfloat16)
    drop = Dropped(key=MaskKey(seed=0, model="a", tensor="x"), density=0.3)
    expected = norm_ratios([series], [drop], chunk=BLOCK), gram([series, series], chunk=BLOCK)
    with statistics_scope.scope(StatisticsCache()) as scope:
        assert scope is not None
        assert series.minus is not None
        scope.add(series.tensor, "math")
        scope.add(series.minus, "base")
        for _ in range(2):
            found = norm_ratios([series], [drop], chunk=BLOCK), gram([series, series], chunk=BLOCK)
            assert found == expected
        assert scope.statistics.computed == 2


def test_kept_in_a_folder(tmp_path: Path) -> None:
    first = StatisticsCache(tmp_path / "deep" / "folder")
    first.magnitudes("a", lambda: made(1.5))
    first.number("products", "a * b", lambda: 0.1)
    first.flush()
    second = StatisticsCache(tmp_path / "deep" / "folder")
    found = second.magnitudes("a", never)
    assert (found.bits.tolist(), found.counts.tolist(), found.norm) == ([9, 5], [1, 4], 1.5)
    assert second.number("products", "a * b", never) == 0.1
    assert second.computed == 0
    assert [file.suffix for file in sorted((tmp_path / "deep" / "folder").iterdir())] != [".tmp"]


def test_find() -> None:
    assert made(0).find(1) == (9, 0, 1)
    assert made(0).find(2) == made(0).find(4) == (5, 1, 3)


@pytest.mark.parametrize("chunk", [BLOCK, 10**6])
def test_places_are_those_of_a_stable_sort(chunk: int) -> None:
    """As found chunk by chunk; looking on from one finds any entry of its magnitude."""
    series = delta(torch.bfloat16, 10 * BLOCK + 5)
    found = count_magnitudes(series, chunk=chunk)
    sizes = series.part(0, series.tensor.numel()).abs()
    order = sizes.argsort(descending=True, stable=True)
    noted = 0
    for count in range(1, series.tensor.numel(), 37):
        begin, rest = found.place(count)
        assert rest < PLACE_STEP
        place, noted = int(order[count - 1]), noted + (begin > 0)
        between = sizes[begin : place + 1] == sizes[place]
        assert place + 1 == begin if rest == 0 else int(between.sum()) == rest
    assert noted > 100


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(content)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncated, altered, emptied])
def test_broken_files_are_computed_anew(harm: Any, tmp_path: Path) -> None:
    first = StatisticsCache(tmp_path)
    first.magnitudes("a", lambda: made(1.5))
    first.number("products", "x", lambda: 0.1)
    first.flush()
    for file in tmp_path.iterdir():
        harm(file)
    second = StatisticsCache(tmp_path)
    assert second.magnitudes("a", lambda: made(1.5)).norm == 1.5
    assert second.number("products", "x", lambda: 0.1) == 0.1
    assert second.computed == 2
    second.flush()
    third = StatisticsCache(tmp_path)
    third.magnitudes("a", never)
    assert third.number("products", "x", never) == 0.1


def test_a_file_under_the_name_of_another_is_not_taken(tmp_path: Path) -> None:
    store = StatisticsCache(tmp_path)
    store.magnitudes("a", lambda: made(1.0))
    (first,) = tmp_path.iterdir()
    store.magnitudes("b", lambda: made(2.0))
    (second,) = set(tmp_path.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert StatisticsCache(tmp_path).magnitudes("b", lambda: made(3.0)).norm == 3.0


def test_numbers_of_two_processes_are_joined(tmp_path: Path) -> None:
    stores = [StatisticsCache(tmp_path), StatisticsCache(tmp_path)]
    for number, store in enumerate(stores):
        store.number("products", f"pair {number}", lambda: 0.5)
    for store in stores:
        store.flush()
    third = StatisticsCache(tmp_path)
    assert third.number("products", "pair 0", never) == third.number("products", "pair 1", never)
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text().splitlines()[1])["pair 0"] == (0.5).hex()


def build(models: dict[str, str], folder: str) -> str:
    checkpoints = {name: Checkpoint.open(at, name=name) for name, at in models.items()}
    made = plan(Recipe.from_dict({"merge": TIES}), checkpoints)
    targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
    return build_into(made, checkpoints, targets, statistics=StatisticsCache(Path(folder)))


BUILD = """
import json, sys
from pathlib import Path
import torch
from merging.building.build import build_into
from merging.tensor_statistics.statistics_cache import StatisticsCache
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from spaces.recipes.recipe import Recipe

models, merge, folder = json.loads(sys.argv[1])
checkpoints = {name: Checkpoint.open(at, name=name) for name, at in models.items()}
made = plan(Recipe.from_dict({"merge": merge}), checkpoints)
targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
print(build_into(made, checkpoints, targets, statistics=StatisticsCache(Path(folder))))
"""


@pytest.mark.slow
def test_two_processes_at_once(tiny_family: dict[str, Path], tmp_path: Path) -> None:
    models = {name: str(at) for name, at in tiny_family.items()}
    command = [sys.executable, "-c", BUILD, json.dumps([models, TIES, str(tmp_path)])]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [process.communicate(timeout=120)[0].strip() for process in both]
    assert found[0] == found[1] == build(models, str(tmp_path))
    assert not list(tmp_path.glob("*.tmp"))


DELLA = TIES | {"method": "della"}
FUSION = {"method": "arcee_fusion", "base": "math", "sources": [{"of": "math"}, {"of": "code"}]}


@pytest.mark.parametrize(
    "merge", [TIES, SLERP, DELLA, FUSION], ids=["ties", "slerp", "della", "arcee_fusion"]
)
def test_builds_with_and_without(merge: Any, tiny_family: dict[str, Path], tmp_path: Path) -> None:
    checkpoints = {n: Checkpoint.open(str(at), name=n) for n, at in tiny_family.items()}
    planned = plan(Recipe.from_dict({"merge": merge}), checkpoints)
    targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
    expected = build_into(planned, checkpoints, targets)
    assert (
        build_into(planned, checkpoints, targets, statistics=StatisticsCache(tmp_path)) == expected
    )
    again = StatisticsCache(tmp_path)
    assert build_into(planned, checkpoints, targets, statistics=again) == expected
    assert again.computed == 0


def test_a_changed_model_finds_nothing(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model()
    tuned = {seed: tiny_model(base=base, seed=seed) for seed in (1, 2)}
    for seed, computed in ((1, 1), (2, 1), (1, 0)):
        math = tuned[seed]
        checkpoints = {
            "base": Checkpoint.open(str(base), name="base"),
            "math": Checkpoint.open(str(math), name="math"),
        }
        merge = TIES | {"sources": [{"of": "math"}]}
        planned = plan(Recipe.from_dict({"merge": merge}), checkpoints)
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
        store = StatisticsCache(tmp_path)
        build_into(planned, checkpoints, targets, statistics=store)
        assert store.computed == computed * len(planned.jobs)


def test_a_folder_that_cannot_be_made_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    store = StatisticsCache(tmp_path / "file" / "statistics")
    assert store.magnitudes("a", lambda: made(1.0)).norm == 1.0
    assert store.mapped("ranks", "a", lambda: torch.ones(3)).tolist() == [1, 1, 1]
    store.number("products", "x", lambda: 0.1)
    store.flush()
    (record,) = caplog.records
    assert "kept in memory" in record.getMessage()


def test_a_full_disk_gets_no_large_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.tensor_statistics.statistics_cache.SPARE_DISK", 1 << 62)
    store = StatisticsCache(tmp_path)
    assert store.mapped("ranks", "a", lambda: torch.ones(3)).tolist() == [1, 1, 1]
    assert not list(tmp_path.iterdir())
    assert store.mapped("ranks", "a", lambda: torch.zeros(3)).tolist() == [0, 0, 0]


def test_ranks_are_kept_and_checked(tmp_path: Path) -> None:
    ranks = torch.tensor([2, 0, 1], dtype=torch.int16)
    assert StatisticsCache(tmp_path).mapped("ranks", "a", lambda: ranks).tolist() == [2, 0, 1]
    assert StatisticsCache(tmp_path).mapped("ranks", "a", never).tolist() == [2, 0, 1]
    (file,) = tmp_path.iterdir()
    truncated(file)
    assert StatisticsCache(tmp_path).mapped("ranks", "a", lambda: ranks + 1).tolist() == [3, 1, 2]
    assert StatisticsCache(tmp_path).mapped("ranks", "a", never).tolist() == [3, 1, 2]
    assert StatisticsCache().mapped("ranks", "a", lambda: ranks) is ranks


def test_prepared_builds_compute_nothing(tiny_family: dict[str, Path], tmp_path: Path) -> None:
    checkpoints = {n: Checkpoint.open(str(at), name=n) for n, at in tiny_family.items()}
    parents = [checkpoints[name] for name in ("math", "code", "text")]
    seen: list[tuple[int, int]] = []
    first = StatisticsCache(tmp_path)
    needs = Needs.of(["ties", "slerp", "nuslerp"], base=True)
    note = lambda *at: seen.append(at)  # noqa: E731
    prepare(parents, checkpoints["base"], first, needs=needs, threads=3, progress=note)
    count = len(parents[0].tensors)
    total = count * (1 + 3)  # its products, and its magnitudes in each parent
    assert seen == [(number, total) for number in range(1, total + 1)]
    assert first.computed == count * (6 + 6 + 3)  # products of parents and deltas; magnitudes
    second = StatisticsCache(tmp_path)
    prepare(parents, checkpoints["base"], second, needs=needs)
    for merge in (TIES, SLERP):
        planned = plan(Recipe.from_dict({"merge": merge}), checkpoints)
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
        build_into(planned, checkpoints, targets, statistics=second)
    assert second.computed == 0


def test_nan_in_a_parent_names_file_and_tensor(tiny_model: Any) -> None:
    from safetensors.torch import load_file, save_file

    base = tiny_model()
    math = tiny_model(base=base, seed=1)
    name = "model.layers.1.mlp.up_proj.weight"
    stored = load_file(math / "model.safetensors")
    stored[name].view(-1)[7] = float("nan")
    save_file(stored, math / "model.safetensors")
    checkpoints = {
        "base": Checkpoint.open(str(base), name="base"),
        "math": Checkpoint.open(str(math), name="math"),
    }
    merge = TIES | {"sources": [{"of": "math"}]}
    planned = plan(Recipe.from_dict({"merge": merge}), checkpoints)
    targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
    for statistics in (None, StatisticsCache()):
        message = f"{name}: expected finite weights.*model math: .*model.safetensors: {name} has"
        with pytest.raises(NonFiniteError, match=message):
            build_into(planned, checkpoints, targets, statistics=statistics)
