"""How fast candidates are built in memory, and models on disk, against copying and mergekit.

    python -m benchmarks.merging --size 135M --threads 2
    python -m benchmarks.merging --size 1B --device cuda --homes resident pinned --prepare

Everything runs on models of random weights (bfloat16). Runs alternate with what they are compared
to, and medians are printed as Markdown tables.
"""

from __future__ import annotations

import argparse
import platform
import statistics as stats
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.building import Build, supply_of, synchronised
from benchmarks.disk import compare_on_disk, mergekit_seconds
from benchmarks.generated import SHAPES, make_family
from merging.building.precompute import Needs, prepare
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.native import native_library
from merging.planning.memory_plan import Home
from merging.planning.merge_plan import plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.method_catalogue import METHODS
from spaces.recipes.recipe import Recipe

PAIRS = ("slerp", "nuslerp", "nearswap", "arcee_fusion")
"""Methods that merge two models here; the others merge all parents."""

NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"weight": 0.4},
    "slerp": {"t": 0.4},
    "nuslerp": {"weight": 0.4},
    "multislerp": {"weight": 0.4},
    "passthrough": {"scale": 1.01},
    "nearswap": {"t": 0.001},
    "sce": {"select_topk": 1.0},
}
DELTAS = {"weight": 0.4, "density": 0.5}
"""Of the task-vector methods: density 0.5 is where trimming, dropping and voting all have work."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=list(SHAPES), default="135M")
    parser.add_argument("--parents", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: for busy machines, one thread"
    )
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument(
        "--disk",
        nargs="*",
        choices=list(METHODS),
        metavar="METHOD",
        help="also compare `search build` with mergekit for these methods",
    )
    parser.add_argument(
        "--mergekit",
        nargs="*",
        default=[],
        choices=list(METHODS),
        metavar="METHOD",
        help="let mergekit make the same merge after each repeat of these methods",
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument(
        "--homes",
        nargs="+",
        type=Home,
        choices=list(Home),
        help="where parents live; by default their files for a CPU, the device for a GPU",
    )
    parser.add_argument(
        "--chunks", type=int, nargs="+", default=[None], help="elements at a time, one or several"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="compute all statistics first, and say how long"
    )
    parser.add_argument("--folder", type=Path, help="where models and statistics are made and kept")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as made:
        place = asked.folder or Path(made)
        folders = make_family(place, asked.size, parents=asked.parents, device=asked.device)
        print(_heading(asked), "\n")
        known = StatisticsCache(place / "statistics")
        if asked.prepare:
            _prepare(folders, asked.methods, known, threads=asked.threads)
        clock = time.process_time if asked.cpu_time else time.perf_counter
        in_memory(
            folders,
            asked.methods,
            repeats=asked.repeats,
            warmed=not asked.eager,
            against=asked.mergekit,
            known=known,
            clock=synchronised(clock, asked.device),
            device=asked.device,
            homes=asked.homes or [Home.MAPPED if asked.device.type == "cpu" else Home.RESIDENT],
            chunks=asked.chunks,
        )
        if asked.disk:
            recipes = {method: recipe_of(method, folders) for method in asked.disk}
            print()
            if not asked.eager:  # so that they are kept where `search build` looks for them
                native_library.warm_up()
            compare_on_disk(
                recipes,
                folders,
                repeats=asked.repeats,
                threads=asked.threads,
                compiled=not asked.eager,
            )


def _heading(asked: argparse.Namespace) -> str:
    name = platform.processor() or platform.machine()
    if asked.device.type == "cuda":
        name = torch.cuda.get_device_name(asked.device)
    return (
        f"{asked.size}, base and {asked.parents} parents in bfloat16, {asked.threads} threads, "
        f"{'eager' if asked.eager else 'compiled'}, median of {asked.repeats}; "
        f"{name}, torch {torch.__version__}"
    )


def _prepare(
    folders: Mapping[str, Path], methods: Sequence[str], known: StatisticsCache, *, threads: int
) -> None:
    """Compute what the methods need to know of the parents, as a run does before it begins."""
    opened = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    base, began = opened.pop("base"), time.perf_counter()
    needs = Needs.of(methods, base=True)
    torch.set_num_threads(1)  # tensors are worked on side by side
    prepare(list(opened.values()), base, known, needs=needs, threads=threads)
    torch.set_num_threads(threads)
    print(f"statistics: {time.perf_counter() - began:.1f} s\n", flush=True)


def recipe_of(method: str, models: Sequence[str] | Mapping[str, Path]) -> Recipe:
    """A recipe that gives the method something to do."""
    parents = [name for name in models if name != "base"]
    merge: dict[str, Any] = {"method": method, "parameters": dict(NUMBERS.get(method, {}))}
    takes = {parameter.name for parameter in METHODS[method].parameters}
    if not merge["parameters"]:
        merge["parameters"] = {name: DELTAS[name] for name in DELTAS if name in takes}
    if METHODS[method].max_inputs == 1:
        parents = parents[:1]
    elif method in PAIRS:
        parents = parents[:2]
    if METHODS[method].base.value == "endpoint":
        merge["base"] = parents[0]
    elif METHODS[method].base.value == "required":
        merge["base"] = "base"
    merge["sources"] = [{"of": name} for name in parents]
    return Recipe.from_dict({"merge": merge, "dtype": "bfloat16"})


def in_memory(
    folders: Mapping[str, Path],
    methods: Sequence[str],
    *,
    repeats: int,
    warmed: bool,
    against: Sequence[str],
    known: StatisticsCache,
    clock: Callable[[], float],
    device: torch.device,
    homes: Sequence[Home],
    chunks: Sequence[int | None],
) -> None:
    """Print a table of what a candidate costs after set-up."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    heads = ["method", "models", "set-up s", "candidate s", "GB/s", "times copying its inputs"]
    heads += ["mergekit s", "mergekit takes times"] if against else []
    heads += ["parents", "peak MB", "planned MB"] if device.type == "cuda" else []
    heads += ["chunk"] if any(chunks) else []
    print(_row(heads), _row(["---"] * len(heads)), sep="\n", flush=True)
    supplies = {home: supply_of(home, checkpoints, device, known) for home in homes}
    for method in methods:
        recipe = recipe_of(method, folders)
        made = plan(recipe, checkpoints)
        for home, chunk in product(homes, chunks):
            native_library.cool_down()
            build = Build(
                made,
                checkpoints,
                known,
                clock,
                device=device,
                home=home,
                supply=supplies[home],
                chunk=chunk,
            )
            setup = build.set_up(warmed=warmed)
            runs: list[Callable[[], float]] = [build.copy, build.run]
            if method in against:
                runs.append(partial(mergekit_seconds, recipe, folders, device=str(device)))
            copied, built, *theirs = alternate(runs, repeats)
            row = [method, len(build.names), f"{setup:.1f}", f"{built:.3f}"]
            row += [f"{build.moved / built / 1e9:.1f}", f"{built / copied:.1f}"]
            if against:
                row += [f"{theirs[0]:.1f}", f"{theirs[0] / built:.0f}"] if theirs else ["", ""]
            if device.type == "cuda":
                row += [home.value, f"{build.peak() / 1e6:.0f}", f"{build.planned / 1e6:.0f}"]
            row += [chunk] if any(chunks) else []
            print(_row(row), flush=True)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def alternate(runs: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Median seconds of each, run in turn: whatever else the machine does disturbs all alike."""
    taken = [[run() for run in runs] for _ in range(repeats)]
    return [stats.median(column) for column in zip(*taken, strict=True)]


if __name__ == "__main__":
    main()
