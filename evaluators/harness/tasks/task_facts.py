"""What a task is, in words: where its questions come from, and what it can be scored by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evaluators.harness.answers.requests import AskedTask
from evaluators.harness.questions.few_shot import asked_split
from evaluators.harness.tasks.known_benchmarks import known_set
from evaluators.harness.tasks.task_settings import reported
from evaluators.protocol import Catalogue, QuestionText

ACCURACIES = ("acc", "acc_norm")
"""Metrics that guessing one of several choices scores on."""

LOOKED_AT = 200
"""Questions of a task whose choices are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """A task of a run.

    Attributes:
        name: lm-eval's name.
        kind: How it is asked: ``multiple_choice``, ``generate_until``, ``loglikelihood`` or
            ``loglikelihood_rolling``.
        dataset: Where its questions come from.
        split: The split they are.
        metrics: What it can be scored by, each as ``metric,filter``.
        shots: Solved examples in the prompt.
        known: The title of the well-known test set that it asks; ``None`` if it asks none.
        chance: What guessing scores, where that can be told: accuracy on questions with choices.
        examples: Where worked examples are from; empty where none are shown.
        notes: What a user should know of its documents and examples, a sentence each.
    """

    name: str
    kind: str
    dataset: str
    split: str
    metrics: tuple[str, ...]
    shots: int
    known: str | None
    chance: float | None = None
    examples: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Tasks and their questions.

    Attributes:
        catalogue: What can be asked.
        tasks: What is known of each task, in the catalogue's order.
        texts: Gives what the questions say, by id, which takes time; those without are left out.
    """

    catalogue: Catalogue
    tasks: tuple[TaskFacts, ...] = ()
    texts: Callable[[], Mapping[str, QuestionText]] = dict


def facts_of(asked: AskedTask) -> TaskFacts:
    """Those of a task that was loaded."""
    task = asked.task
    split = asked_split(task) or ""
    dataset = str(task.get_config("dataset_path") or "")
    filters = [str(one["name"]) for one in task.get_config("filter_list") or [{"name": "none"}]]
    return TaskFacts(
        name=asked.info.name,
        kind=str(task.OUTPUT_TYPE),
        dataset=dataset,
        split=split,
        metrics=tuple(
            f"{metric},{chosen}"
            for metric in reported(task, asked.document(0))
            for chosen in filters
        ),
        shots=int(task.get_config("num_fewshot") or 0),
        known=known_set(asked.info.name, dataset=dataset, split=split),
        chance=_chance(asked),
        examples=asked.pool.source if asked.pool is not None else "",
        notes=asked.notes,
    )


def _chance(asked: AskedTask) -> float | None:
    """Mean of one over the number of choices, of the first questions."""
    guessing = asked.task.OUTPUT_TYPE == "multiple_choice" and asked.metric in ACCURACIES
    if not guessing or asked.task.get_config("doc_to_choice") is None:
        return None
    looked_at = range(min(LOOKED_AT, len(asked.documents)))
    counts = [len(asked.task.doc_to_choice(asked.document(at))) for at in looked_at]
    return sum(1.0 / count for count in counts) / len(counts) if all(counts) else None
