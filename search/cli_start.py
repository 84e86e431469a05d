"""Commands for the time before a run; the same rules as in ``search.cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli_options import Address, GpuHours, Hours, Questions, TestSets, Trials, Workers


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(check)


def check(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Headers and tasks only: no weight is read.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke/--no-smoke", help="Whether to try a candidate.")
    ] = True,
    html: Annotated[Path | None, typer.Option(help="HTML file to write, with heat maps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Longest time to sample weights for.")
    ] = 60.0,
    gpu_memory: Annotated[
        float | None, typer.Option(min=0.1, help="GB of a worker's GPU, if it is elsewhere.")
    ] = None,
    trials: Trials = None,
    questions: Questions = None,
    hours: Hours = None,
    gpu_hours: GpuHours = None,
    workers: Workers = None,
    ray_address: Address = None,
    allow_test_sets: TestSets = False,
) -> None:
    """Check a config before a run: problems, time, memory, and whether the models will merge."""
    from search.checking import check as run_check
    from search.overrides import Overrides
    from search.preflight import Depth

    overrides = Overrides(
        trials=trials,
        questions=questions,
        hours=hours,
        gpu_hours=gpu_hours,
        workers=workers,
        ray_address=ray_address,
        allow_test_sets=allow_test_sets or None,
    )
    depth = Depth(
        weights=not quick, smoke=smoke and not quick, seconds=seconds, gpu_memory=gpu_memory
    )
    run_check(config, overrides=overrides, depth=depth, html=html, as_json=json)
