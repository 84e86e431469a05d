"""A whole search on one GPU, and what building, scoring and planning come to there.

    python -m benchmarks.gpu --out gpu.json
    python -m benchmarks.gpu --device cpu --size tiny --out cpu.json     # the same steps, anywhere

Nothing is downloaded, and it takes at most eight minutes: each step has a limit, and what hangs
is ended and shows the stacks of its threads. Steps that the time no longer allows are left out and
named. A demo family is trained and checked; searched by one worker, killed halfway and resumed;
searched by two workers on the same GPU; then every pass is compared with torch's calls and the
CPU's bits, candidates of random weights are built by every method with resident and streamed
parents, and lm-eval questions are asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_inputs import TRIALS
from benchmarks.steps import Ended, Step, all_well, log_tails, python, run
from runs.records.record import Record, Split, State
from runs.storage.database.connection import DATABASE_ERRORS, StoreError
from runs.storage.store import Store

SECONDS = 480.0
"""Longest time for everything."""

LEAST_SECONDS = 20.0
"""With less time left no step is begun."""

SEARCH = ("-c", "import search.cli, sys; sys.exit(search.cli.main())")
"""The command line, whether or not its script is installed."""


def main() -> int:
    """Run all steps; the exit code says whether each did what it was to do."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", default="1B", help="of the models that are built and copied")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument(
        "--patience", type=float, default=1.0, help="factor on all limits, for busy machines"
    )
    parser.add_argument("--folder", type=Path, help="where models and runs are made and kept")
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory() as made:
        place = asked.folder or Path(made)
        ended, left_out = [], []
        until = time.monotonic() + asked.patience * SECONDS
        for step in steps(place, device=asked.device, size=asked.size):
            left = until - time.monotonic()
            if left < LEAST_SECONDS:
                left_out.append(step.name)
                continue
            limited = Step(
                name=step.name,
                command=step.command,
                seconds=min(asked.patience * step.seconds, left),
                until=step.until,
            )
            ended.append(run(limited))
            if ended[-1].how == "time limit":
                print(log_tails(Path(tempfile.gettempdir()) / "ray" / "session_latest" / "logs"))
        runs = {name: figures_of(place / name) for name in ("one", "two")}
        figures = {"steps": [asdict(one) for one in ended], "left out": left_out, "runs": runs}
    asked.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(table(ended, left_out, runs))
    return 0 if all_well(ended) and not left_out else 1


def steps(place: Path, *, device: str, size: str) -> Iterator[Step]:
    """What is done, in order; a later step may need what an earlier one left."""
    gpu = device == "cuda"
    family, search = place / "family", (sys.executable, *SEARCH)
    yield Step(name="machine", command=python("benchmarks.gpu_inputs", device), seconds=60)
    made = python("benchmarks.gpu_inputs", device, "--family", str(family))
    yield Step(name="family", command=made, seconds=120)
    one, two = family / "one.yaml", family / "two.yaml"
    yield Step(name="check", command=(*search, "check", str(one), "--json"), seconds=60)
    run_one, run_two = place / "one", place / "two"
    yield Step(
        name="search, killed",
        command=(*search, "run", str(one), "--out", str(run_one)),
        seconds=100,
        until=lambda: scored(run_one / "study.db") >= TRIALS // 2,
    )
    yield Step(
        name="search, resumed",
        command=(*search, "resume", str(run_one / "study.db")),
        seconds=100,
    )
    yield Step(
        name="search, two workers",
        command=(*search, "run", str(two), "--out", str(run_two)),
        seconds=100,
    )
    few = () if gpu else ("--entries", "2000000")
    yield Step(
        name="passes", command=python("benchmarks.passes", "--device", device, *few), seconds=60
    )
    homes = ("--homes", "resident", "pinned") if gpu else ()
    yield Step(
        name="builds",
        command=python(
            "benchmarks.merging", "--size", size, "--device", device, "--repeats", "2",
            "--threads", str(os.cpu_count() or 1), "--prepare", *homes,
        ),
        seconds=240,
    )  # fmt: skip
    shape = ("--layers", "25", "--hidden", "768") if gpu else ("--layers", "2", "--hidden", "64")
    yield Step(
        name="scoring",
        command=python("benchmarks.scoring", "--device", device, "--recipes", "2", *shape),
        seconds=100,
    )


def scored(study: Path) -> int:
    """Number of recipes with a score by now; 0 where there is no study that can be read yet."""
    if not study.exists():
        return 0
    try:
        with closing(Store.open(str(study))) as store:
            return sum(_is_scored(one) for one in store.records())
    except (StoreError, *DATABASE_ERRORS):
        return 0


def _is_scored(record: Record) -> bool:
    done = record.evaluations.get(Split.SEARCH)
    return done is not None and done.state is State.COMPLETE


def figures_of(folder: Path) -> dict[str, Any]:
    """The facts of a run's report, where there is one."""
    report = folder / "leaderboard.json"
    return json.loads(report.read_text(encoding="utf-8"))["facts"] if report.exists() else {}


def table(ended: list[Ended], left_out: list[str], runs: dict[str, dict[str, Any]]) -> str:
    """How each step ended, and the facts of the runs."""
    rows = ["| step | ended | s |", "|---|---|---|"]
    rows += [f"| {one.name} | {one.how} | {one.seconds:.0f} |" for one in ended]
    rows += [f"| {name} | left out: no time | |" for name in left_out]
    for name, facts in runs.items():
        rows += ["", f"Run `{name}`:", *(f"- {key}: {value}" for key, value in facts.items())]
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
