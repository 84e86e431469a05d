"""``search build`` and mergekit on the same recipe, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import statistics as stats
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spaces.mergekit import to_yaml
from spaces.recipes.recipe import Recipe

_POLL = 0.02  # seconds between looks at a process's memory

_MERGEKIT = """
import sys, time, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))
options = MergeOptions(
    quiet=True,
    copy_tokenizer=False,
    write_model_card=False,
    device=sys.argv[3],
    read_to_gpu=sys.argv[3] != "cpu",
    lazy_unpickle=False,
)
began = time.perf_counter()
run_merge(config, sys.argv[2], options)
print("seconds", time.perf_counter() - began)
"""

_SEARCH = """
import sys, time
from pathlib import Path
import search.inputs.recipe_models  # torch and the like, which `build` loads when called
from search.commands.build_command import build
began = time.perf_counter()
build(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=5 * 1024**3)
print("seconds", time.perf_counter() - began)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a merge took.

    Attributes:
        seconds: Without the start of the process and imports.
        whole: With them.
        memory: Most bytes of memory of its own; mapped files are not counted.
    """

    seconds: float
    whole: float
    memory: float


def compare_on_disk(
    recipes: Mapping[str, Recipe],
    folders: Mapping[str, Path],
    *,
    repeats: int,
    threads: int,
    compiled: bool,
) -> None:
    """Print a table of both and of writing the file, runs in turn.

    Args:
        recipes: By method.
        folders: Of the models.
        repeats: Of each; medians are printed.
        threads: Of either.
        compiled: Let ours find compiled passes, as after a search; else it finds none.
    """
    print(
        "| method | ours s | writing s | times writing | mergekit s | faster by "
        "| with imports s | mergekit | GB | mergekit |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    size = (folders["base"] / "model.safetensors").stat().st_size
    for method, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "recipe.yaml"
            text = to_yaml(recipe, {name: str(at) for name, at in folders.items()})
            file.write_text(text, encoding="utf-8")
            none = {} if compiled else {"XDG_CACHE_HOME": folder}
            out, runs, writes = Path(folder) / "out", [], []
            for _ in range(repeats):
                ours = _run(_SEARCH, file, out, threads, **none)
                writes.append(_write(Path(folder) / "written", size))
                runs.append((ours, _run(_MERGEKIT, file, out, threads)))
        ours, theirs = (_median([run[at] for run in runs]) for at in range(2))
        written = stats.median(writes)
        print(
            f"| {method} | {ours.seconds:.2f} | {written:.2f} | {ours.seconds / written:.1f} "
            f"| {theirs.seconds:.2f} "
            f"| {theirs.seconds / ours.seconds:.1f} | {ours.whole:.1f} | {theirs.whole:.1f} "
            f"| {ours.memory / 1e9:.2f} | {theirs.memory / 1e9:.2f} |",
            flush=True,
        )


def mergekit_seconds(recipe: Recipe, folders: Mapping[str, Path], *, device: str = "cpu") -> float:
    """How long mergekit merges, with as many threads as torch has here; imports not counted."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        text = to_yaml(recipe, {name: str(at) for name, at in folders.items()})
        file.write_text(text, encoding="utf-8")
        out, threads = Path(folder) / "out", torch.get_num_threads()
        return _run(_MERGEKIT, file, out, threads, device=device).seconds


def _write(file: Path, size: int) -> float:
    """Seconds of writing so many bytes from memory to the disk itself."""
    content = bytes(size)
    began = time.perf_counter()
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    spent = time.perf_counter() - began
    file.unlink()
    return spent


def _run(
    code: str, file: Path, out: Path, threads: int, *, device: str = "cpu", **variables: str
) -> Spent:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **variables}
    began, memory = time.perf_counter(), 0
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file), str(out), device],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        while process.poll() is None:
            memory = max(memory, _memory(process.pid))
            time.sleep(_POLL)
        printed, complaints = process.communicate()
    whole = time.perf_counter() - began
    shutil.rmtree(out, ignore_errors=True)
    lines = [line for line in printed.splitlines() if line.startswith("seconds ")]
    if not lines:
        raise RuntimeError(complaints)
    return Spent(seconds=float(lines[-1].split()[1]), whole=whole, memory=memory)


def _memory(pid: int) -> int:
    """Anonymous memory of a process in bytes (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _median(runs: Sequence[Spent]) -> Spent:
    return Spent(
        seconds=stats.median(run.seconds for run in runs),
        whole=stats.median(run.whole for run in runs),
        memory=stats.median(run.memory for run in runs),
    )
