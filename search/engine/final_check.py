"""The check at the end of a run: who is asked all that is left, and what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial

from runs.config.budget import Budget
from runs.config.config_sections import FloorSection
from runs.config.locations import twin
from runs.config.run_config import RunConfig
from runs.ranking.floors import floored, is_moving
from runs.ranking.leaderboard import contenders, ranked
from runs.records.question_split import Questions
from runs.records.record import BASE, MEASURES, PARENT, SCORE, Record, Split, State, is_known_good
from runs.storage.store import Store
from search.engine.loop import Asker, Loop
from search.engine.processes.stop_signals import Stop
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.held_out_looks import note_look
from search.samplers.estimation.posterior import judged
from search.samplers.sampler_choice import weighs_scores

FINALISTS = "finalists"
"""The fact that says whom the check at the end has chosen so far."""


def final_check(store: Store, ask_tell: AskTell, loop: Loop, *, top: int, stop: Stop) -> None:
    """Ask the best recipes what they have not been asked, then the held-out questions."""
    if not store.manifest.questions.held_out or top == 0:
        return
    _finals(store, ask_tell, loop, top=top, stop=stop)
    asks: list[Asker] = [
        partial(ask_tell.validate, number) for number in to_validate(store, top=top)
    ]
    if not stop.requested:
        loop.ask("held-out", asks, total=len(asks))
    if not stop.requested:
        note_look(store)


def _finals(store: Store, ask_tell: AskTell, loop: Loop, *, top: int, stop: Stop) -> None:
    """Ask the best all search questions; with the answers others may turn out to be the best.

    Who was chosen is remembered: after a crash the choice goes on, and is not made anew with the
    answers that some of the chosen gave before it.
    """
    this = {"top": top, "candidates": ask_tell.taken_up}  # another check, or one after more search
    known = store.mapping(FINALISTS, tried=list)
    tried = [number for number in known.pop("tried", []) if isinstance(number, int)]
    if known != this:
        tried = []
    # Some of them may not have been asked before a crash; where floors lie has to be sure too.
    failed = {r.id for r in store.records() if r.evaluations[Split.SEARCH].state is State.FAILED}
    chosen = [*(number for number in tried if number not in failed), *_best_parents(store)]
    while True:
        asks: list[Asker] = [partial(ask_tell.complete, number) for number in chosen]
        if asks:
            loop.ask("finals", asks, total=len(asks))
        if stop.requested:
            return
        best = to_complete(judged(store), top=top, objectives=store.manifest.objectives)
        new = [record.id for record in best if record.id not in tried]
        chosen = new[: max(0, finalists(top) - len(tried))]
        if not chosen:
            return
        tried = [*tried, *chosen]
        store.set_fact(FINALISTS, json.dumps(this | {"tried": tried}))


def _best_parents(store: Store) -> list[int]:
    """The parents that floors depend on: the best of each such task."""
    moving = [task.name for task in floored(store.manifest.catalogue.tasks) if is_moving(task)]
    parents = [one for one in judged(store) if one.origin.startswith(PARENT)] if moving else []
    found = []
    for name in moving:
        known = [one for one in parents if name in one.margins]
        found += [max(known, key=lambda one: one.margins[name].value).id] if known else []
    return [*dict.fromkeys(found)]


def budget_problems(
    config: RunConfig, questions: Questions, *, seeds: int, objectives: Sequence[str]
) -> list[str]:
    """What is wrong with a budget in questions or tokens, one line each."""
    budget = Budget.of(config.search)
    top = places(config.search.validate_top, objectives)
    kept = reserve(config, questions, top=top, seeds=seeds)
    # enough to ask every baseline something before the check
    needed = kept + min(len(questions.search), 60) * baselines(config)
    return [
        f"search.{name}: expected at least {needed}{each}, of which {kept} are for the final check "
        f"of {top} recipes (search.validate), got {limit}"
        for name, limit, each in (
            ("questions", budget.questions, ""),
            ("tokens", budget.tokens, ", one for each question"),
        )
        if limit is not None and limit < needed
    ]


def places(asked: int, objectives: Sequence[str]) -> int:
    """How many recipes to check: the first in rank and the best in every task of a front fit in.

    Args:
        asked: By the user; none for none.
        objectives: Of the run; none where the weighted sum is the only one.
    """
    tasks = sum(name not in (SCORE, *MEASURES) for name in objectives)
    return max(asked, 1 + tasks) if asked and tasks else asked


def baselines(config: RunConfig) -> int:
    """How many are scored whatever the search finds: parents, average, and base."""
    apart = config.base is not None and twin(config.locations, BASE) is None
    return len(config.models) + 1 + apart


def finalists(top: int) -> int:
    """How many are asked all search questions at most, so that the best of them are sure."""
    return top + math.ceil(top / 2)


def asks_all(config: RunConfig) -> bool:
    """Whether every candidate is asked all search questions.

    ``auto`` does so where the budget counts recipes only, since fewer questions would then save
    nothing, and for samplers that take a score from few questions for as good as one from many.
    """
    search = config.search
    if search.asking != "auto":
        return search.asking == "all"
    return not (Budget.of(search).counts_questions and weighs_scores(search.sampler))


def references(config: RunConfig, *, top: int, seeds: int) -> int:
    """How many are asked the held-out questions to compare with, at most: see ``reserve``."""
    return baselines(config) + min(top, seeds)


def reserve(config: RunConfig, questions: Questions, *, top: int, seeds: int) -> int:
    """The most questions that the final check can take.

    Args:
        config: Of the run.
        questions: Of the run.
        top: Recipes to check.
        seeds: Recipes that the search starts with, besides the baselines.
    """
    if not questions.held_out or top == 0:
        return 0
    unanswered = 0 if asks_all(config) else len(questions.search)
    # At most so many parents are asked all search questions because floors depend on them.
    moving = sum(isinstance(task.floor, FloorSection) for task in config.tasks)
    completed = finalists(top) + min(moving, len(config.models))
    asked = top + references(config, top=top, seeds=seeds)
    return completed * unanswered + asked * len(questions.held_out)


def to_validate(store: Store, *, top: int) -> list[int]:
    """Candidates that the held-out questions are still to be asked of, best first."""
    if not store.manifest.questions.held_out or top == 0:
        return []
    chosen = to_judge(judged(store), top=top, objectives=store.manifest.objectives)
    return [record.id for record in chosen if not _finished(record, Split.HELD_OUT)]


def to_judge(
    records: Sequence[Record], *, top: int, objectives: Sequence[str] = ()
) -> list[Record]:
    """Who is asked the held-out questions, by rank.

    The best recipes, the parents and the plain average, and as many of the known-good recipes that
    the search started with; all chosen by what they did on the search questions.

    Args:
        records: All candidates, with what is to be expected of them.
        top: How many recipes besides those that are asked for comparison.
        objectives: Of the run, where there are several.
    """
    best = {record.id for record in to_complete(records, top=top, objectives=objectives)}
    best |= _references(records, top)
    return [record for record in ranked(records) if record.id in best]


def to_complete(
    records: Sequence[Record], *, top: int, objectives: Sequence[str] = ()
) -> list[Record]:
    """Who is asked all search questions: the first in rank, and the best recipes.

    Whoever is asked the held-out questions for comparison takes no place of the others.
    """
    order, aside = contenders(records, objectives=objectives), _references(records, top)
    chosen = [record for record in order if record.id not in aside][:top]
    return [*(first for first in order[:1] if first not in chosen), *chosen]


def _references(records: Sequence[Record], top: int) -> set[int]:
    """Whom the others are compared with: they are asked the held-out questions anyway."""
    order = ranked(records)
    known_good = [record.id for record in order if is_known_good(record.origin)]
    return {*known_good[:top], *(record.id for record in order if record.is_baseline)}


def _finished(record: Record, split: Split) -> bool:
    evaluation = record.evaluations.get(split)
    return evaluation is not None and evaluation.state is not State.RUNNING
