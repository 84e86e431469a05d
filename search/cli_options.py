"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Study = Annotated[str, typer.Argument(metavar="STUDY", help="study.db of a run, or its URL.")]
Trials = Annotated[
    int | None,
    typer.Option(min=1, help="Number of recipes to evaluate in all."),
]
Questions = Annotated[int | None, typer.Option(min=1, help="Number of questions to ask in all.")]
Hours = Annotated[float | None, typer.Option(min=0.0, help="Hours to search in all.")]
GpuHours = Annotated[
    float | None, typer.Option(min=0.0, help="Hours of all workers, times the GPUs of each.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of workers.")]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Ray cluster to use, such as `auto` or HOST:PORT."),
]
TestSets = Annotated[
    bool,
    typer.Option("--allow-test-sets", help="Search on well-known test sets all the same."),
]
