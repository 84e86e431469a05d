"""Arguments and options that several commands take."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.inputs.overrides import Overrides
from spaces.text.terminal_text import printable

if TYPE_CHECKING:  # brings the database
    from search.inputs.stored_study.code_trust import Consent

Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="study.db of a run, the run's folder, or a database URL."),
]
Moved = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="OLD=NEW",
        help="New location of a model, by name or start of path; may be repeated.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-study", help="Allow code that the study names, though it was made elsewhere."
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Total number of recipes to evaluate."),
]
Questions = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Total number of questions to ask.")
]
Tokens = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Total tokens to read and write.")
]
Hours = Annotated[float | None, typer.Option(metavar="N", min=0.0, help="Total hours to search.")]
GpuHours = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=0.0, help="Total GPU-hours: workers' hours times the GPUs of each."
    ),
]
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="Number of workers.")]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Ray cluster to use, such as `auto` or HOST:PORT."),
]
TestSets = Annotated[
    bool,
    typer.Option("--allow-test-sets", help="Allow well-known benchmark test sets as search tasks."),
]


def consent(trusted: bool) -> Consent:
    """The answer of a command line: what it was given, or what a person at a terminal says."""

    def asked(lines: Sequence[str]) -> bool:
        if trusted or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return trusted
        typer.echo("This study was made elsewhere. Continuing runs code that it names:", err=True)
        for line in lines:
            typer.echo(f"  {printable(line)}", err=True)
        return typer.confirm("Do you trust all of it?", err=True)

    return asked


_REPLACING = {
    "trials": Trials,
    "questions": Questions,
    "tokens": Tokens,
    "hours": Hours,
    "gpu_hours": GpuHours,
    "workers": Workers,
    "ray_address": Address,
}
"""The options that replace values of a config, by their names in ``Overrides``."""


def with_overrides(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options that replace values of a config, in place of ``overrides``.

    Typer reads options from a signature; these stand in one place for all commands that have them.

    Args:
        command: Takes what they come to as its keyword argument ``overrides``.
    """

    def called(**given: Any) -> None:
        values = {name: given.pop(name) for name in _REPLACING}
        command(**given, overrides=Overrides(**values))

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name != "overrides":
            parameters.append(parameter)
            continue
        parameters += [
            inspect.Parameter(name, parameter.kind, default=None, annotation=kind)
            for name, kind in _REPLACING.items()
        ]
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
