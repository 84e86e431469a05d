"""Putting requests to a language model of lm-eval, and marking what comes back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluators.harness.answers.answer_endings import AnswerEnd, Ending
from evaluators.harness.answers.answer_texts import answer_text
from evaluators.harness.answers.task_scores import outcome, task_score
from evaluators.harness.questions.few_shot import FewShotPool
from evaluators.harness.questions.question_ids import Keys
from evaluators.harness_spec import TaskSpec
from evaluators.protocol import Outcome, Question, TaskInfo, TaskScore
from evaluators.resident_models.candidate_failures import NonFiniteScoreError
from spaces.text.error_text import fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTask:
    """A task as it is asked.

    Attributes:
        spec: What the user wants.
        task: lm-eval's object.
        info: For the catalogue.
        metric: Name without the filter.
        filter: Name of the answer filter that counts.
        filters: lm-eval's object for it.
        aggregate: Makes the task's value of the items that the metric gave.
        by_item: Whether that means something for a single item, where it is not the mean.
        documents: In split order.
        questions: One per document.
        keys: What identifies each document.
        pool: Where worked examples come from; ``None`` where none are shown.
        aside: Positions of documents that are not asked.
        notes: What a user should know of its documents, a sentence each.
    """

    spec: TaskSpec
    task: Any
    info: TaskInfo
    metric: str
    filter: str
    filters: Any
    aggregate: Callable[[Sequence[Any]], Any]
    by_item: bool
    documents: tuple[Any, ...]
    questions: tuple[Question, ...]
    keys: tuple[Keys, ...] = ()
    pool: FewShotPool | None = None
    aside: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def document(self, position: int) -> Any:
        """A copy of a document: tasks may change what they are given."""
        return copy.deepcopy(self.documents[position])

    def asked(self) -> tuple[Question, ...]:
        """The questions that are not set aside, in split order."""
        return tuple(q for q in self.questions if q.position not in self.aside)


def longest(lm: Any, requests: Mapping[str, Sequence[Any]]) -> int:
    """Tokens of the longest sequence that will be asked, as far as the model can take it."""
    most = 1
    for request in (item for items in requests.values() for item in items):
        text = request.args[0]
        room = 0
        if request.request_type == "loglikelihood":
            text += request.args[1]
        elif request.request_type == "generate_until":
            room = int(request.args[1].get("max_gen_toks", lm.max_gen_toks))
        most = max(most, len(lm.tok_encode(text)) + room)
    return min(most, int(lm.max_length))


def tokens_read(lm: Any, request: Any) -> int:
    """Tokens of what a model is shown for a request: the prompt, and an answer to be rated."""
    if request.request_type == "loglikelihood":
        return sum(map(len, lm.pair(*request.args)))
    return len(lm.tok_encode(request.args[0]))


def respond(lm: Any, requests: Sequence[Any]) -> dict[int, list[AnswerEnd]]:
    """Put the requests to the model, each kind at once, as ``lm_eval.evaluate`` does.

    Returns:
        How each written answer ended, by ``id`` of its request.

    Raises:
        NonFiniteScoreError: If a likelihood is not a number.
    """
    kinds: dict[str, list[Any]] = {}
    ends: dict[int, list[AnswerEnd]] = {}
    for request in requests:
        kinds.setdefault(request.request_type, []).extend([request] * (request.repeats or 1))
    for kind, repeated in kinds.items():
        responses = getattr(lm, kind)(repeated, disable_tqdm=True)
        for request, response in zip(repeated, responses, strict=True):
            number = response[0] if isinstance(response, tuple) else response
            if isinstance(number, float) and math.isnan(number):
                raise NonFiniteScoreError(f"task {request.task_name}: a log-likelihood is NaN")
            request.resps.append(response)
            if kind == "generate_until":
                ends.setdefault(id(request), []).append(lm.endings.take(request.args))
    return ends


def mark(
    task: AskedTask,
    positions: Sequence[int],
    chosen: Mapping[str, list[Any]],
    ends: Mapping[int, Sequence[AnswerEnd]],
    *,
    read: Callable[[Any], int],
    texts: int = 0,
) -> tuple[TaskScore, list[Outcome]]:
    """The task's own marks for the answers.

    Args:
        task: The task.
        positions: Of the questions asked.
        chosen: Their requests, answered, by question id.
        ends: How each written answer ended, by ``id`` of its request.
        read: Tokens that a model is shown for a request.
        texts: Most characters of each answer's text; 0 leaves texts out.

    Raises:
        NonFiniteScoreError: If no question gave the metric.
    """
    ids = [task.questions[position].id for position in positions]
    task.filters.apply([request for name in ids for request in chosen[name]])
    items: dict[str, Any] = {}
    for name, position in zip(ids, positions, strict=True):
        answers = [request.filtered_resps[task.filter] for request in chosen[name]]
        given = task.task.process_results(task.document(position), answers)
        if given.get(task.metric) is not None:  # a task may leave out a metric for a question
            items[name] = given[task.metric]
    if not items:
        raise NonFiniteScoreError(f"task {task.info.name}: no question gave {task.metric}")
    mean, by_item = task.info.mean, task.by_item
    lengths = {name: _length(chosen[name]) for name in ids}
    asked = [request for name in ids for request in chosen[name]]
    written = [end for request in asked for end in ends.get(id(request), ())]
    endings = [end.ending for end in written]
    score = replace(
        task_score(task.info.name, items, aggregate=task.aggregate, mean=mean),
        unmarked=len(ids) - len(items),
        length=_mean([length for length in lengths.values() if length is not None]),
        cut_off=_mean([ending is Ending.CAP for ending in endings]),
        looped=_mean([ending is Ending.LOOP for ending in endings]),
        tokens=sum(read(request) * (request.repeats or 1) for request in asked)
        + sum(end.tokens for end in written),
    )
    outcomes = [
        outcome(
            name,
            items.get(name),
            aggregate=task.aggregate,
            mean=mean,
            by_item=by_item,
            length=lengths[name],
        )
        for name in ids
    ]
    if texts:
        outcomes = [
            replace(one, text=fitted(answer_text(chosen[one.question], task.metric, ends), texts))
            for one in outcomes
        ]
    return score, outcomes


def _length(requests: Sequence[Any]) -> float | None:
    """Characters of the answers written to a question, on average, if any is written."""
    written = [
        len(answer)
        for request in requests
        if request.request_type == "generate_until"
        for answer in request.resps
    ]
    return _mean(written)


def _mean(numbers: Sequence[float]) -> float | None:
    return math.fsum(numbers) / len(numbers) if numbers else None
