"""Bringing tasks together: which of their questions share documents, and which are not asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from evaluators.harness.answers.requests import AskedTask
from evaluators.harness.questions.question_ids import Documents, about
from evaluators.protocol import EvaluatorError


def brought_together(tasks: Sequence[AskedTask]) -> tuple[AskedTask, ...]:
    """The tasks of a run, with documents named alike and worked examples that nobody is asked.

    Raises:
        EvaluatorError: With everything that leaves a task without questions or examples.
    """
    known = Documents([keys for task in tasks for keys in task.keys])
    named = [replace(task, questions=about(task.questions, task.keys, known)) for task in tasks]
    every = frozenset(q.document for task in named for q in task.questions)
    pools = [task.pool for task in named if task.pool is not None]
    aside = frozenset(chain.from_iterable(pool.put_aside(known, every) for pool in pools))
    problems: list[str] = []
    left = every - aside
    contents = frozenset(
        key
        for task in named
        for question in task.questions
        if question.document in left
        for key in task.keys[question.position]
    )
    result = []
    for task in named:
        positions = frozenset(q.position for q in task.questions if q.document in aside)
        try:
            notes = _take_examples(task, known, left, contents=contents)
        except EvaluatorError as error:
            problems += [f"task {task.info.name}: {problem}" for problem in error.problems]
            continue
        if len(positions) == len(task.questions):
            problems.append(
                f"task {task.info.name}: num_fewshot: expected to leave questions to ask, got "
                f"none: all {len(positions)} documents are set aside for worked examples"
            )
        if positions:
            notes = [
                f"{task.info.name}: {len(positions)} of {len(task.questions):,} questions are not "
                "asked: their documents are set aside for worked examples. Examples from a split "
                "of their own (fewshot_split) leave all questions to ask."
            ]
        info = replace(task.info, aside=len(positions))
        result.append(replace(task, info=info, aside=positions, notes=(*task.notes, *notes)))
    if problems:
        raise EvaluatorError(problems)
    return tuple(result)


def _take_examples(
    task: AskedTask, known: Documents, asked: frozenset[str], *, contents: frozenset[str]
) -> list[str]:
    """Let a task show no document that is asked; what a user should know of it."""
    pool = task.pool
    if pool is None:
        return []
    shown = pool.shown(known, asked)
    left_out = len(pool.documents) - len(shown)
    if not hasattr(task.task, "sampler"):
        if left_out:
            raise EvaluatorError(
                [
                    f"num_fewshot: expected 0 for a task in Python whose worked examples are from "
                    f"{pool.source}, {left_out} of whose documents are asked, got {pool.shots}"
                ]
            )
        return []
    if left_out:
        task.task.sampler.replace_df(shown)
    task.task.sampler.asked = contents
    if not left_out:
        return []
    return [
        f"{task.info.name}: worked examples are taken from {len(shown):,} of the "
        f"{len(pool.documents):,} documents of {pool.source}; the others are asked, or are the "
        "same again."
    ]
