"""What every command has: --quiet, --json, an exit code for a stop, and examples in its help."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

FORMAT = 1
"""Version of the JSON that commands print; it grows when a key changes its meaning or goes."""

STOPPED = 3
"""Exit code of a run that was stopped and can go on."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
]

OWN_OUTPUT = ("schema", "serve")
"""Commands whose output is a file, or an address that nobody could do without."""

EXAMPLES = {
    "demo": ("search demo", "search demo --out /tmp/demo --trials 30"),
    "init": (
        "search init ./math ./code --base ./base --task gsm8k_dev",
        "search init math=./math code=./code --task my_task.yaml --hours 8 --out night.yaml",
    ),
    "import": ("search import evolve.yml", "search import recipe.yml --config search.yaml"),
    "schema": ("search schema --out search.schema.json",),
    "check": ("search check search.yaml", "search check search.yaml --quick --html check.html"),
    "run": (
        "search run search.yaml",
        "search run search.yaml --out night --hours 8 --workers 4",
        "search run search.yaml --dry-run",
    ),
    "resume": ("search resume night", "search resume night/study.db --trials 500"),
    "validate": ("search validate night --top 5",),
    "status": ("search status night", "search status night --watch", "search status night --json"),
    "compare": (
        "search compare night best math",
        "search compare night 17 base --task gsm8k_dev --find train --most 50",
    ),
    "report": ("search report night", "search report night --out pages --format html --format csv"),
    "export": ("search export night", "search export night --rank 2 --out second.yaml"),
    "build": ("search build best.yaml merged", "search build best.yaml merged --shard-size 2"),
    "serve": ("search serve night", "search serve night --port 8080"),
    "push": ("search push merged me/my-merge", "search push merged me/my-merge --public"),
}
"""Lines as people type them, by command."""


def for_programs(app: typer.Typer) -> None:
    """Give all commands of a command line what programs need, and examples."""
    for info in app.registered_commands:
        assert info.callback is not None
        name = info.name or info.callback.__name__
        lines = (f"  {line}" for line in EXAMPLES.get(name, ()))
        info.epilog = "\n".join(("\b", "Examples:", *lines))
        if name not in OWN_OUTPUT:
            info.callback = _printed(info.callback, name)


def _printed(command: Callable[..., None], name: str) -> Callable[..., None]:
    """A command with ``--quiet`` and ``--json``; one that has its own ``--json`` keeps that."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    added = {"quiet": Quiet} if "json" in parameters else {"quiet": Quiet, "as_json": Json}

    def called(*, quiet: bool, as_json: bool = False, **given: Any) -> None:
        from search.monitoring.console import printing

        own = bool(given.get("json"))
        with printing(quiet=(quiet and not own) or as_json, shown=as_json) as result:
            command(**given)
        if as_json:
            found = {"format": FORMAT, "command": name, **result}
            typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
        if result.get("stopped"):
            raise typer.Exit(STOPPED)

    for key, kind in added.items():
        parameters[key] = inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind
        )
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return called
