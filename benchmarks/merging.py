"""How fast candidates are built in memory, and models on disk, against copying and mergekit.

    python -m benchmarks.merging --size 135M --threads 2

Everything runs on models of random weights (bfloat16). Runs alternate with what they are compared
to, and medians are printed as Markdown tables.
"""

from __future__ import annotations

import argparse
import platform
import statistics as stats
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.disk import compare_on_disk, mergekit_seconds
from benchmarks.generated import SHAPES, make_family
from merging import compiled
from merging.build import build_into
from merging.cache import Statistics
from merging.checkpoint import Checkpoint
from merging.plan import MergePlan, plan
from merging.warming import variants_of
from spaces.methods import METHODS
from spaces.recipe import Recipe

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
    parser.add_argument("--folder", type=Path, help="where models and statistics are made and kept")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as made:
        place = asked.folder or Path(made)
        folders = make_family(place, asked.size, parents=asked.parents)
        print(
            f"{asked.size}, base and {asked.parents} parents in bfloat16, {asked.threads} threads, "
            f"{'eager' if asked.eager else 'compiled'}, median of {asked.repeats}; "
            f"{platform.processor() or platform.machine()}, torch {torch.__version__}\n"
        )
        in_memory(
            folders,
            asked.methods,
            repeats=asked.repeats,
            warmed=not asked.eager,
            against=asked.mergekit,
            known=Statistics(place / "statistics"),
            clock=time.process_time if asked.cpu_time else time.perf_counter,
        )
        if asked.disk:
            recipes = {method: recipe_of(method, folders) for method in asked.disk}
            print()
            if not asked.eager:  # so that they are kept where `search build` looks for them
                _compile(recipes.values(), folders)
            compare_on_disk(
                recipes,
                folders,
                repeats=asked.repeats,
                threads=asked.threads,
                compiled=not asked.eager,
            )


def _compile(recipes: Iterable[Recipe], folders: Mapping[str, Path]) -> None:
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    for recipe in recipes:
        compiled.warm_up(variants_of(plan(recipe, checkpoints)))


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
    known: Statistics,
    clock: Callable[[], float],
) -> None:
    """Print a table of what a candidate costs after set-up."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    print(
        "| method | models | set-up s | candidate s | GB/s | times copying its inputs "
        "| mergekit s | mergekit takes times |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for method in methods:
        recipe = recipe_of(method, folders)
        compiled.cool_down()
        build = _Build(plan(recipe, checkpoints), checkpoints, known, clock)
        setup = build.set_up(warmed=warmed)
        runs: list[Callable[[], float]] = [build.copy, build.run]
        if method in against:
            runs.append(partial(mergekit_seconds, recipe, folders))
        copied, built, *theirs = alternate(runs, repeats)
        moved = build.moved / built / 1e9
        row = [method, len(build.names), f"{setup:.1f}", f"{built:.3f}", f"{moved:.1f}"]
        row += [f"{built / copied:.1f}"]
        row += [f"{theirs[0]:.1f}", f"{theirs[0] / built:.0f}"] if theirs else ["", ""]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


class _Build:
    """A candidate built again and again, and copies of its inputs."""

    def __init__(
        self,
        made: MergePlan,
        checkpoints: Mapping[str, Checkpoint],
        known: Statistics,
        clock: Callable[[], float],
    ) -> None:
        self.names = list(made.recipe.models)
        self.moved = made.size * (len(self.names) + 1)
        self._made, self._checkpoints, self._known = made, checkpoints, known
        self._clock = clock
        self._copies = {name: _copies(checkpoints[name]) for name in self.names}
        self._targets = {job.name: torch.zeros(job.shape, dtype=job.dtype) for job in made.jobs}

    def set_up(self, *, warmed: bool) -> float:
        """Seconds of the warm-up and the first build with its statistics."""
        began = time.perf_counter()
        if warmed:
            compiled.warm_up(variants_of(self._made))
        self.run()
        self.copy()
        return time.perf_counter() - began

    def run(self) -> float:
        """Seconds of a build."""
        began = self._clock()
        build_into(self._made, self._checkpoints, self._targets, statistics=self._known)
        return self._clock() - began

    def copy(self) -> float:
        """Seconds of copying the inputs."""
        began = self._clock()
        for name in self.names:
            for tensor, target in self._copies[name].items():
                target.copy_(self._checkpoints[name].tensor(tensor))
        return self._clock() - began


def _copies(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(checkpoint.tensor(name)) for name in checkpoint.tensors}


def alternate(runs: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Median seconds of each, run in turn: whatever else the machine does disturbs all alike."""
    taken = [[run() for run in runs] for _ in range(repeats)]
    return [stats.median(column) for column in zip(*taken, strict=True)]


if __name__ == "__main__":
    main()
