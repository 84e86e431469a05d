"""The command line: parse, one call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from search.cli import start_commands
from search.cli.command_output import STOPPED, for_programs
from search.cli.installation import shadowed
from search.cli.options import (
    Address,
    Moved,
    Study,
    TestSets,
    Trust,
    Workers,
    consent,
    with_overrides,
)
from search.inputs.input_error import RunFailed, RunStopped
from search.inputs.overrides import Overrides
from spaces.errors import UserError
from spaces.text.redaction import hidden
from spaces.text.terminal_text import printable, stripped

app = typer.Typer(
    name="search",
    help="Search for merge recipes of language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False

start_commands.register(app)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Options that come before the command."""
    global _debug
    _debug = debug
    if version:
        from search.cli.installation import version as installed

        typer.echo(f"merge-search {installed()}")
        raise typer.Exit
    if context.invoked_subcommand is None:  # pragma: no cover - no_args_is_help answers first
        raise typer.Exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for all output.")] = Path(
        "demo"
    ),
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="60", help="Total number of recipes."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="one per core", help="Number of workers."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed.")] = 0,
) -> None:
    """Search a tiny model family made here, and build the winner."""
    from search.commands.demo_command import demo as run_demo

    run_demo(out, trials=trials, workers=workers, seed=seed)


@app.command()
@with_overrides
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for the run; by default named after CONFIG."),
    ] = None,
    *,
    overrides: Overrides,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="MERGE_SEARCH_STORAGE",
            show_envvar=False,
            help="Database for the study, such as postgresql://HOST/DB, instead of study.db.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Use made-up scores instead of models, to try a config.")
    ] = False,
    allow_test_sets: TestSets = False,
) -> None:
    """Start a search."""
    from search.commands import run_command

    overrides = replace(overrides, allow_test_sets=allow_test_sets or None)
    run_command.run(config, out=out, overrides=overrides, storage=storage, dry_run=dry_run)


@app.command()
@with_overrides
def resume(
    study: Study,
    *,
    overrides: Overrides,
    moved: Moved = None,
    trust_study: Trust = False,
) -> None:
    """Continue a search, after a crash or with a larger budget."""
    from search.commands import run_command
    from search.inputs.moved_locations import read_moves

    overrides = replace(overrides, moves=read_moves(moved or ()))
    run_command.resume(study, overrides=overrides, consent=consent(trust_study))


@app.command()
def validate(
    study: Study,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of best recipes to check.")
    ] = 3,
    max_gen_toks: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Another cap on answers, in tokens; kept apart."),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Quantised weights: nf4, int8 or fp8; kept apart."),
    ] = None,
    workers: Workers = None,
    ray_address: Address = None,
    moved: Moved = None,
    trust_study: Trust = False,
) -> None:
    """Score the best recipes and the parents on held-out questions."""
    from search.commands import run_command
    from search.inputs.moved_locations import read_moves

    moves = read_moves(moved or ())
    overrides = Overrides(workers=workers, ray_address=ray_address, moves=moves)
    run_command.validate(
        study,
        top=top,
        overrides=overrides,
        consent=consent(trust_study),
        max_gen_toks=max_gen_toks,
        quantize=quantize,
    )


@app.command()
def status(
    study: Study,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep showing it until the run ends; Ctrl-C stops watching."),
    ] = False,
    interval: Annotated[
        float,
        typer.Option(metavar="N", min=0.5, max=3600, help="Seconds between updates, with --watch."),
    ] = 5.0,
) -> None:
    """Show the progress of a run; only reads, also while it runs."""
    from search.commands import study_commands

    study_commands.status(study, watched=watch, interval=interval)


@app.command()
def serve(
    study: Study,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; all but this machine's own ask for a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 for a free one."),
    ] = 8700,
) -> None:
    """Show a run in a browser while it goes on; only reads."""
    from search.commands import study_commands

    study_commands.serve(study, host=host, port=port)


@app.command()
def compare(
    study: Study,
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Candidate: best, a number, a parent's name or an origin."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another candidate.")],
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="search or held-out; by default held-out where both answered them.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show questions of this task only.")
    ] = None,
    find: Annotated[str, typer.Option(metavar="TEXT", help="Show questions with this text.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Show also questions on which both are as good.")
    ] = False,
    most: Annotated[int, typer.Option(min=0, metavar="N", help="Most questions to show.")] = 10,
) -> None:
    """Show two candidates question by question, and both answers."""
    from search.commands.comparison.compare_command import compare as compare_candidates
    from search.commands.comparison.compared_questions import QuestionFilter

    wanted = QuestionFilter(task=task, text=find, everything=everything, most=most)
    compare_candidates(study, (first, second), questions=questions, wanted=wanted)


@app.command()
def report(
    study: Study,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write to; by default the study's."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="html, csv, markdown, json, parquet, png or svg; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write the leaderboard report."""
    from search.commands import study_commands

    study_commands.report(study, out=out, formats=tuple(formats or ()))


@app.command()
def export(
    study: Study,
    rank: Annotated[int, typer.Option(metavar="N", min=1, help="Place in the leaderboard.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write; by default best.yaml or rank-N.yaml beside the study.",
        ),
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Absolute paths, not relative to the file's folder.")
    ] = False,
    moved: Moved = None,
) -> None:
    """Write a recipe of the leaderboard as YAML for mergekit."""
    from search.commands import study_commands

    study_commands.export(study, rank=rank, out=out, absolute=absolute, mapped=moved or ())


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe or mergekit YAML.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to make.")],
    shard_size: Annotated[
        float, typer.Option(metavar="N", min=0.001, help="Largest weight file, in GB.")
    ] = 5.0,
    moved: Moved = None,
) -> None:
    """Build the model of a recipe and write it to a folder."""
    from search.commands.build_command import build as build_model

    build_model(recipe, out, shard_bytes=int(shard_size * 1e9), mapped=moved or ())


@app.command()
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Model folder that `search build` wrote.")
    ],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model on the hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; by default private.")
    ] = False,
) -> None:
    """Upload a built model and its card to the Hugging Face hub."""
    from runs.export.card_metadata import card_metadata
    from runs.export.hub_upload import upload
    from search.monitoring.console import console, say, tell

    address = upload(folder, repository, public=public)
    if not card_metadata(folder).get("license"):
        say(console(), f"note: {folder}: its card declares no license")
    tell(url=address)
    say(console(), f"Uploaded {folder} to {address}")


for_programs(app)


def main() -> NoReturn:
    """Run the command line; exit codes: 0 done, 1 failed, 2 bad input, 3 stopped, can go on."""
    problem = shadowed()
    if problem is not None:
        _fail([problem], code=2)
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(error.problems, code=2)
    except RunStopped as error:
        _fail([str(error)], code=STOPPED)
    except RunFailed as error:
        _fail([str(error)], code=1)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        _fail([f"{where}{error.strerror or error}"], code=1)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, not a traceback
        if isinstance(error, _usage_errors()):
            _show_usage(error)
        hint = "" if _debug else " (search --debug ... shows where)"
        _fail([f"{type(error).__name__}: {error}".splitlines()[0] + hint], code=1)
    if code == _INTERRUPTED:
        _fail(["stopped at once; `search resume` continues a run whose study was made"], code=1)
    sys.exit(code or 0)


_INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""


def _usage_errors() -> tuple[type[Exception], ...]:
    """Typer's class for an option that does not exist and the like, wherever it has it from."""
    return tuple(
        base
        for base in typer.BadParameter.__mro__
        if base.__name__ == "ClickException" and issubclass(base, Exception)
    )


def _show_usage(error: Exception) -> NoReturn:
    """What Typer says of wrong arguments, which it repeats: there may be a password in them."""
    said = io.StringIO()
    error.show(file=said)  # type: ignore[attr-defined]
    print(stripped(hidden(said.getvalue())), end="", file=sys.stderr)
    sys.exit(2)


def _fail(problems: tuple[str, ...] | list[str], *, code: int) -> NoReturn:
    if _debug:
        print(stripped(hidden(traceback.format_exc())), end="", file=sys.stderr)
    for problem in problems:
        print(f"search: error: {printable(hidden(problem))}", file=sys.stderr)
    sys.exit(code)
