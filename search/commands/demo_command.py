"""``search demo``: a tiny model family made here, searched, and the winner built."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from runs.ranking.verdict import Verdict
from runs.report.task_tables import task_difference
from search.commands import run_command
from search.commands.build_command import build
from search.commands.run_handle import Run
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides
from search.inputs.stored_study.study_path import STUDY
from search.monitoring.console import console as terminal
from search.monitoring.console import say_line, say_lines
from search.setup.demo_models.model_family import ModelFamily, make_family

MERGED = "merged"
"""Name of the built model's folder."""


def demo(out: Path, *, trials: int | None, workers: int | None, seed: int) -> None:
    """Make a family, search it, build the winner; see ``search demo --help``.

    What is there already is used: a second call goes on where the first one ended.
    """
    console = terminal()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder or nothing, got a file; use --out")
    family = _family(out / "family", seed=seed, console=console)
    study = out / STUDY
    overrides = Overrides(trials=trials, workers=workers)
    if study.exists():
        run_command.resume(study, overrides=overrides, consent=lambda _: False)
    else:
        run_command.run(family.config, out=out, overrides=overrides)
    merged = out / MERGED
    if not merged.exists():
        build(out / "best.yaml", merged, shard_bytes=5 * 10**9)
    say_lines(console, _margins(Run(study).verdict))
    say_line(
        console,
        f"Everything is in {out}: open {out / 'report.html'}, or try `search status {study}`.",
    )


def _family(folder: Path, *, seed: int, console: Console) -> ModelFamily:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("making a model family", total=1.0)
        if not console.is_terminal:
            console.print("Making a model family: a base and three specialists ...")

        def show(what: str, share: float) -> None:
            progress.update(task, description=what, completed=share)

        return make_family(folder, seed=seed, progress=show)


def _margins(verdict: Verdict | None) -> list[str]:
    """By how much the winner beats each model it was made of, on held-out questions."""
    if verdict is None:
        return []
    gaps = {one.name: task_difference(verdict, one, "") for one in verdict.finalists[1:]}
    width = max(map(len, gaps), default=0)
    return [
        "On held-out questions, the winner against:",
        *(
            f"  {name:<{width}}  {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
            for name, gap in gaps.items()
            if gap is not None
        ),
    ]
