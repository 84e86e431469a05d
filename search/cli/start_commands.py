"""Commands for the time before a run; the same rules as in ``search.cli.app``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import Hours, TestSets, Trials, with_overrides
from search.inputs.overrides import Overrides


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(check)
    app.command()(init)
    app.command("import")(import_)
    app.command()(schema)


def init(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODELS", help="Folders or hub ids, or NAME=FOLDER."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Model that the others were fine-tuned from."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK", help="lm-eval task: a name, a file, or a folder; may be repeated."
        ),
    ] = None,
    include_path: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Folder with task files; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")] = Path("search.yaml"),
    hours: Hours = None,
    trials: Trials = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a commented config for models and tasks."""
    from search.commands.config_commands import asks
    from search.commands.config_commands import init as write
    from search.setup.config_files import check_free
    from search.setup.config_request import ConfigRequest

    check_free(out, force=force)
    if asks():  # only for what cannot do without, and only where there is somebody
        if not models:
            models = typer.prompt(
                "Models to merge (folders or hub ids, separated by spaces)"
            ).split()
            base = base or typer.prompt("Their base (empty if unknown)", default="") or None
        if not task:
            task = typer.prompt("lm-eval tasks (names or files, separated by spaces)").split()
    wanted = ConfigRequest(
        models=tuple(models or ()),
        base=base,
        tasks=tuple(task or ()),
        include_path=tuple(include_path or ()),
        hours=hours,
        trials=trials,
    )
    write(wanted, out, force=force)


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="mergekit-evolve config, or mergekit YAML.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write; by default search.yaml, or seed-NAME.yaml."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="For a recipe: config to check the recipe against."),
    ] = None,
    include_path: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Folder with task files; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Convert a mergekit-evolve config, or a mergekit recipe."""
    from search.commands.config_commands import import_file

    import_file(file, out=out, config=config, include_path=tuple(include_path or ()), force=force)


def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write instead of printing.")
    ] = None,
) -> None:
    """Print the JSON Schema of a config, for editors."""
    from search.setup.config_files import schema_text, write_schema

    if out is None:
        typer.echo(schema_text(), nl=False)
    else:
        write_schema(out)


@with_overrides
def check(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Headers and tasks only: no weight is read.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke/--no-smoke", help="Build and ask one candidate.")
    ] = True,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML file to write, with heat maps.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    seconds: Annotated[
        float,
        typer.Option(metavar="N", min=1.0, help="Time limit for sampling weights, in seconds."),
    ] = 60.0,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0.1,
            help="Memory of a worker's GPU in GB, if it is in another machine.",
        ),
    ] = None,
    *,
    overrides: Overrides,
    allow_test_sets: TestSets = False,
) -> None:
    """Find a config's problems, its time and memory, before a run."""
    from search.commands.check_command import check as run_check
    from search.preflight.preflight_depth import PreflightDepth

    overrides = replace(overrides, allow_test_sets=allow_test_sets or None)
    depth = PreflightDepth(
        weights=not quick, smoke=smoke and not quick, seconds=seconds, gpu_memory=gpu_memory
    )
    run_check(config, overrides=overrides, depth=depth, html=html, as_json=json)
