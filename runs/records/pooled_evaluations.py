"""Evaluations made of parts: what a candidate was asked at several times, as one result."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluators.protocol import FailureKind, TaskInfo, TaskScore, combine
from runs.records.record import Evaluation, Part, Split, State

NOT_ITS_OWN = (FailureKind.LOST_WORKER, FailureKind.NODE_GONE, FailureKind.TIMEOUT)
"""Failures that say nothing about a candidate which has answered other questions."""

QUARANTINED = (FailureKind.OUT_OF_MEMORY, FailureKind.LOST_WORKER)
"""Failures of recipes that were tried again already, and cost a worker its memory or its life."""


def whole(split: Split, parts: Sequence[Part], tasks: Sequence[TaskInfo]) -> Evaluation:
    """The evaluation that its parts come to.

    Args:
        split: What the questions belong to.
        parts: At least one, in the order they were begun.
        tasks: Weights and directions.

    Returns:
        The evaluation. It is running while its last part is. A failure condemns the candidate,
        unless it has answers and the failure is not its own.
    """
    complete = [part for part in parts if part.state is State.COMPLETE]
    failed = [part for part in parts if part.state is State.FAILED]
    last = parts[-1]
    state = last.state
    if complete and last.failure_kind in NOT_ITS_OWN:
        state = State.COMPLETE
    value, stderr, scores = _scored([] if state is State.FAILED else complete, tasks)
    return Evaluation(
        split=split,
        asked=sum(part.questions for part in parts),
        state=state,
        value=value,
        stderr=stderr,
        tasks=scores,
        questions=sum(part.questions for part in complete or parts),
        build_seconds=_sum([part.build_seconds for part in complete]),
        score_seconds=_sum([part.score_seconds for part in complete]),
        worker=last.worker,
        fingerprint=next((part.fingerprint for part in parts if part.fingerprint), ""),
        failure_kind=failed[-1].failure_kind if failed else None,
        failure_message=failed[-1].failure_message if failed else "",
        started=parts[0].started,
        finished=None if state is State.RUNNING else last.finished,
        attempts=max(part.attempts for part in parts),
    )


def _scored(
    parts: Sequence[Part], tasks: Sequence[TaskInfo]
) -> tuple[float, float, tuple[TaskScore, ...]]:
    """Combined score, its standard error, and the score of every task that was asked."""
    if not parts:
        return math.nan, math.nan, ()
    if len(parts) == 1:  # as the worker gave it, to the last bit
        (part,) = parts  # an earlier version took all right for certain
        return part.value, part.stderr or combine(part.tasks, tasks)[1], part.tasks
    by_task: dict[str, list[TaskScore]] = {}
    for part in parts:
        for score in part.tasks:
            by_task.setdefault(score.task, []).append(score)
    scores = tuple(pooled(by_task[task.name]) for task in tasks if task.name in by_task)
    return *combine(scores, tasks), scores


def pooled(scores: Sequence[TaskScore]) -> TaskScore:
    """Means of one task over different questions as the mean over all of them.

    The standard error follows from the sums of squares within the parts and between their means,
    so that it is that of the mean over all the questions at once.

    Args:
        scores: Of the same task, at least one; ``stderr`` as that of a mean of ``n`` values.
    """
    if len(scores) == 1:
        return scores[0]
    n = sum(score.n for score in scores)
    value = math.fsum(score.n * score.value for score in scores) / n
    squares = math.fsum(
        (score.stderr**2 * score.n * (score.n - 1) if score.n > 1 else 0.0)
        + score.n * (score.value - value) ** 2
        for score in scores
    )
    return TaskScore(
        task=scores[0].task,
        value=value,
        stderr=math.sqrt(squares / (n - 1) / n),
        n=n,
        unmarked=sum(score.unmarked for score in scores),
        length=_of_answers(scores, [score.length for score in scores]),
        cut_off=_of_answers(scores, [score.cut_off for score in scores]),
        looped=_of_answers(scores, [score.looped for score in scores]),
        tokens=sum(score.tokens for score in scores),
    )


def _of_answers(scores: Sequence[TaskScore], means: Sequence[float | None]) -> float | None:
    """The mean over all questions of what each part has a mean of; those without are left out."""
    counts = [score.n + score.unmarked for score in scores]
    known = [(n, mean) for n, mean in zip(counts, means, strict=True) if mean is not None]
    total = sum(n for n, _ in known)
    return math.fsum(n * mean for n, mean in known) / total if total else None


def _sum(seconds: Sequence[float]) -> float:
    return math.fsum(seconds) if seconds else math.nan
