"""Commands that only read a study: no model, no worker, nothing heavier than tables."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runs.config.budget import Budget, Cost
from runs.config.run_config import RunConfig
from runs.export.recipe_export import recipe_text
from runs.output_files import write_text
from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import Verdict
from runs.records.record import Record
from runs.report.report_files import FORMATS, write_report
from runs.storage.store import Store
from search.engine.spending import cost_so_far
from search.inputs.input_error import InputError
from search.inputs.moved_locations import Move, moved_values, read_moves
from search.inputs.overrides import Overrides
from search.inputs.stored_study.config_edits import edits
from search.inputs.stored_study.study_config import config_of, new_budget
from search.inputs.stored_study.study_path import study_in
from search.monitoring.console import console, say_line, say_lines, say_written, tell
from search.monitoring.live.study_watcher import await_study, watch
from search.monitoring.run_verdict import judge_run
from search.monitoring.study_report import make_report, places_for
from search.monitoring.study_summary import outcome, show_status
from search.samplers.estimation.posterior import judged


def status(study: str, *, watched: bool = False, interval: float = 5.0) -> None:
    """Show where a run stands; see ``search status --help``."""
    screen = console()
    if watched:
        try:
            study = await_study(study, screen, interval=interval)
        except KeyboardInterrupt:
            return
    with Store.open(study_in(study)) as store:
        if watched:
            watch(store, screen, interval=interval)
        say_lines(screen, store.notes)
        with _without_collector():
            show_status(store, config_of(store), screen)


def serve(study: str, *, host: str, port: int, interval: float = 5.0) -> None:
    """Show a run in a browser as it goes on; see ``search serve --help``."""
    from search.monitoring.live.page_server import serve as serve_pages

    screen = console()

    try:
        place = study_in(await_study(study, screen, interval=interval))
    except KeyboardInterrupt:
        return
    with Store.open(place) as store:
        say_lines(screen, store.notes)
    ending = "Ctrl-C ends it; the run goes on without it"
    serve_pages(place, host=host, port=port, told=lambda url: say_line(screen, f"{url}\n{ending}"))


def report(study: str, *, out: Path | None, formats: tuple[str, ...]) -> None:
    """Write the leaderboard report; see ``search report --help``."""
    names = formats or tuple(FORMATS)
    with Store.open(study_in(study)) as store, _without_collector():
        say_lines(console(), store.notes)
        content = make_report(store, config_of(store))
        folder = out if out is not None else store.folder
        say_written(console(), write_report(content, folder, names))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Let circles of garbage be: to look for some among so many records takes a sixth of the time.

    There are hardly any, and the command ends soon.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def export(
    study: str, *, rank: int, out: Path | None, absolute: bool, mapped: Sequence[str]
) -> None:
    """Write a found recipe as YAML; see ``search export --help``."""
    path = write_ranked(study, rank=rank, out=out, absolute=absolute, moves=read_moves(mapped))
    say_written(console(), [path])


def write_ranked(
    study: str,
    *,
    rank: int,
    out: Path | None,
    absolute: bool = False,
    moves: Sequence[Move] = (),
) -> Path:
    """Write the recipe at a place of the leaderboard; the file comes back.

    Args:
        study: The study.
        rank: The place, from 1.
        out: The file; by default beside the study.
        absolute: Whether locations are absolute, instead of from the file's folder.
        moves: What lies elsewhere than the study says.
    """
    with Store.open(study_in(study)) as store:
        say_lines(console(), store.notes)
        record, verdict = judged_at(store, rank)
        name = "best.yaml" if rank == 1 else f"rank-{rank}.yaml"
        path = out if out is not None else store.folder / name
        config = config_of(store)
        places = places_for(
            config.replaced(moved_values(config, moves)), path.parent, absolute=absolute
        )
        write_text(path, recipe_text(record, store.manifest, places, verdict))
        return path


def judged_at(store: Store, rank: int) -> tuple[Record, Verdict | None]:
    """The candidate at a place of the leaderboard, from 1, and the verdict on the first.

    Raises:
        InputError: If there is none.
    """
    records = judged(store)
    return at_rank(records, rank), judge_run(store, records) if rank == 1 else None


def at_rank(records: Sequence[Record], rank: int) -> Record:
    """The candidate at a place of the leaderboard, from 1.

    Raises:
        InputError: If there is none.
    """
    order = ranked(records)
    if not 1 <= rank <= len(order):
        raise InputError(f"rank: expected 1 to {len(order)} (scored candidates), got {rank}")
    return order[rank - 1]


def is_over(store: Store, config: RunConfig) -> bool:
    """Whether a study has spent its budget, and also the one it is given now."""
    kept, asked = (Budget.of(one.search) for one in (config_of(store), config))
    if store.fact("ended") != kept.words(Cost()) or store.under_way():
        return False
    return asked == kept or asked.share(cost_so_far(store, store.records(recipes=False))) >= 1


def say_over(store: Store, config: RunConfig, overrides: Overrides) -> None:
    """Tell that there is nothing to do for a study, and what would be; a new budget is kept."""
    store.check_sound()
    budget = Budget.of(config.search)
    if budget != Budget.of(config_of(store).search):
        store.hold()
        kept = json.dumps(new_budget(store, overrides))
        store.set_facts({"budget": kept, "ended": budget.words(Cost())})
    spent = budget.words(cost_so_far(store, store.records(recipes=False)))
    screen = console()
    tell(lambda: outcome(make_report(store, config)), study=store.name, stopped=False)
    say_lines(screen, edits(store, config))
    say_line(
        screen,
        f"{store.name}: nothing to do, the budget is spent ({spent}); set a larger "
        "one, such as with --trials",
    )
