"""The finalists of a run asked its held-out questions in another set-up.

With another cap on answers, or with quantised weights: what comes of it is printed and written to a
file of its own, and never goes into the study.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluators.protocol import Candidate, Catalogue, Failure, Score, TaskInfo
from evaluators.workers.pool import Pool
from runs.config.run_config import RunConfig
from runs.output_files import write_text
from runs.ranking.finalists import Entry
from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import Verdict, ending_notes, name_of, verdict
from runs.ranking.verdict_text import title
from runs.records.record import Record, Split, role_of
from runs.report.report_files import plain
from runs.report.report_tables import score_text, shares
from runs.statistics.comparisons import by_task
from runs.storage.store import Store
from search.engine.driver import quiet_libraries, setting_of, workers_of
from search.engine.final_check import places, to_judge
from search.engine.preparation.task_survey import length_problems
from search.inputs.input_error import InputError, RunFailed
from search.monitoring.console import console, say_line, say_written, step, tell
from search.monitoring.fitted_table import FittedTable
from search.monitoring.run_verdict import show_verdict
from search.samplers.estimation.posterior import judged

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SetUp:
    """What is otherwise than in the run; at least one of both.

    Attributes:
        max_gen_toks: Most tokens of an answer.
        quantize: How weights are quantised, one of ``QUANTISED``.
    """

    max_gen_toks: int | None = None
    quantize: str | None = None

    @property
    def changes(self) -> dict[str, int | str]:
        """What is given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def words(self) -> str:
        """Such as ``max_gen_toks 768, quantize nf4``."""
        return ", ".join(f"{name} {value}" for name, value in self.changes.items())

    @property
    def file(self) -> str:
        """Name of the file for what comes of it."""
        return re.sub(r"[ _,]+", "-", self.words) + ".json"


def recheck(store: Store, config: RunConfig, *, top: int, set_up: SetUp) -> None:
    """Ask the best recipes and the baselines again; see ``search validate --help``.

    Args:
        store: The study; it is only read.
        config: Of the study, as it is to be used.
        top: How many recipes besides those they are compared with.
        set_up: What is otherwise than in the run.

    Raises:
        InputError: If there is nothing whose answers are written, or they have no room.
        RunFailed: If nobody could be scored.
    """
    manifest = store.manifest
    _check(store, set_up)
    records = judged(store)
    top = places(top, manifest.objectives)
    chosen = to_judge(records, top=top, objectives=manifest.objectives)
    if set_up.max_gen_toks is not None:
        caps = config.harness.gen_kwargs | {"max_gen_toks": set_up.max_gen_toks}
        config = config.replaced({"harness.gen_kwargs": caps})
    setting = replace(setting_of(store, config), quantise=set_up.quantize)
    donors = {record.recipe.donor for record in chosen}
    models = {name: one for name, one in setting.checkpoints.items() if name in donors}
    given = set_up.max_gen_toks is not None
    if given and (problems := length_problems(config, models, place="--max-gen-toks")):
        raise InputError([f"{store.name}: {problem}" for problem in problems])
    with quiet_libraries(), workers_of(setting) as pool:
        found = _ask(pool, chosen, manifest.questions.held_out)
    scores = {number: one for number, one in found.items() if isinstance(one, Score)}
    failed = {number: one for number, one in found.items() if isinstance(one, Failure)}
    if not scores:
        raise RunFailed(f"{store.name}: no candidate could be scored; {_words(failed)}")
    asked = [record for record in chosen if record.id in scores]
    ranks = {record.id: rank for rank, record in enumerate(ranked(records), start=1)}
    made = _judge(asked, scores, ranks, manifest.catalogue)
    path = store.folder / set_up.file
    data = _data(asked, scores, made, set_up)
    write_text(path, json.dumps(data, indent=2) + "\n")
    screen = console()
    screen.print(_table(asked, scores, manifest.catalogue.tasks, set_up))
    show_verdict(made, manifest.catalogue.tasks, screen)
    if failed:
        say_line(screen, f"Could not be scored: {_words(failed)}")
    say_line(
        screen,
        f"All of this is with {set_up.words}, another set-up than the run's: "
        "it is kept in the file below alone. Study, leaderboard and report have the run's numbers.",
    )
    tell(study=store.name, recheck=data)
    say_written(screen, [path])


def _check(store: Store, set_up: SetUp) -> None:
    """Whether there is something to ask otherwise.

    Raises:
        InputError: If there is not.
    """
    manifest = store.manifest
    written = not manifest.dry_run and any(task.written for task in manifest.catalogue.tasks)
    if set_up.max_gen_toks is not None and not written:
        raise InputError(
            f"{store.name}: --max-gen-toks: expected a task whose answers are written, got none"
        )
    if set_up.quantize is not None and manifest.dry_run:
        raise InputError(f"{store.name}: --quantize: expected a run of models, got a dry run")


def _ask(
    pool: Pool, chosen: Sequence[Record], questions: Sequence[str]
) -> dict[int, Score | Failure]:
    for record in chosen:
        pool.submit(Candidate(id=record.id, recipe=record.recipe, questions=tuple(questions)))
    found: dict[int, Score | Failure] = {}
    while pool.pending:
        if (result := pool.next()) is not None:
            found[result.candidate.id] = result.scored
            step(f"{len(found)} of {len(chosen)} candidates asked")
    return found


def _judge(
    asked: Sequence[Record],
    scores: Mapping[int, Score],
    ranks: Mapping[int, int],
    catalogue: Catalogue,
) -> Verdict:
    """The verdict on these answers alone; nothing of the run's goes in but the order."""
    entries = [
        Entry(
            name=name_of(record),
            role=role_of(record.origin),
            rank=ranks.get(record.id),
            outcomes=by_task(scores[record.id].outcomes, catalogue),
        )
        for record in asked
    ]
    found = verdict(entries, tasks=catalogue.tasks, documents=catalogue.documents())
    written = {
        name_of(record): {one.task: one for one in scores[record.id].tasks} for record in asked
    }
    return replace(found, notes=(*found.notes, *ending_notes(written)))


def _table(
    asked: Sequence[Record], scores: Mapping[int, Score], tasks: Sequence[TaskInfo], set_up: SetUp
) -> FittedTable:
    written = [task.name for task in tasks if task.written]
    values = ", ".join(str(value) for value in set_up.changes.values())
    rows = []
    for record in asked:
        score, before = scores[record.id], record.evaluations.get(Split.HELD_OUT)
        by_name = {one.task: one for one in score.tasks}
        rows.append(
            (
                title(name_of(record)),
                score_text(score.value, score.stderr),
                "" if before is None else score_text(before.value, before.stderr),
                *shares(by_name[name].cut_off for name in written),
            )
        )
    return FittedTable(
        title=f"Held-out questions with {set_up.words}",
        headers=("", f"with {values}", "in the run", *(f"cut off {name}" for name in written)),
        rows=rows,
        numeric=(False, True, True, *(True for _ in written)),
    )


def _data(
    asked: Sequence[Record], scores: Mapping[int, Score], made: Verdict, set_up: SetUp
) -> dict[str, Any]:
    data = {
        "format": FORMAT,
        **set_up.changes,
        "verdict": made.sentence,
        "notes": list(made.notes),
        "candidates": [
            {
                "candidate": record.id,
                "origin": record.origin,
                "key": record.recipe.key,
                "value": scores[record.id].value,
                "stderr": scores[record.id].stderr,
                "tasks": [asdict(one) for one in scores[record.id].tasks],
            }
            for record in asked
        ],
    }
    return {key: plain(value) for key, value in data.items()}


def _words(failed: Mapping[int, Failure]) -> str:
    return "; ".join(f"candidate {at}: {one.kind}: {one.message}" for at, one in failed.items())
