"""Which questions guide the search, and which are kept back to check its result."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations

from evaluators.protocol import Catalogue, TaskInfo
from runs.records.record import Split
from spaces.text.error_text import counted

FEWEST_HELD_OUT = 20
"""Held-out questions of a task below which no interval says anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The questions of a run, each in exactly one split, in the run's fixed order.

    Attributes:
        search: Ids that candidates are scored on while searching.
        held_out: Ids asked only of finished candidates, to report; may be empty.
    """

    search: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The ids of one split."""
        return self.search if split is Split.SEARCH else self.held_out


def divide(catalogue: Catalogue, held_out: float | tuple[str, ...], *, seed: int) -> Questions:
    """Split and shuffle the questions of a catalogue, document by document.

    All questions about a document, of any task, go to one side. Order and split come from hashes
    of the seed and of question and document, so that they depend neither on the order of the tasks
    nor on any random generator, and a question more or less moves few other ones.

    Args:
        catalogue: All questions.
        held_out: Share of each task's questions to hold out, in [0, 1), or names of whole tasks.
        seed: The run's seed.

    Returns:
        Both splits. Each task's share, of all its questions, those set aside for worked examples
        too, is as near to ``held_out`` as whole documents allow; one above 0 holds out at least
        one document of a task and leaves at least one, where it has two. Where whole tasks are
        held out, questions of other tasks about the same documents are in neither split.
    """
    ranked = sorted(catalogue.questions, key=lambda question: _rank(question.id, seed))
    about = catalogue.documents()
    if isinstance(held_out, tuple):
        apart = {task.name for task in catalogue.tasks if held_out_whole(task, held_out)}
        kept_back = {about[q.id] for q in ranked if q.task in apart}
        return Questions(
            search=tuple(q.id for q in ranked if about[q.id] not in kept_back),
            held_out=tuple(q.id for q in ranked if q.task in apart),
        )
    kept_back = _held_out_documents(catalogue, held_out, seed)
    return Questions(
        search=tuple(q.id for q in ranked if about[q.id] not in kept_back),
        held_out=tuple(q.id for q in ranked if about[q.id] in kept_back),
    )


def held_out_whole(task: TaskInfo, held_out: float | tuple[str, ...]) -> bool:
    """Whether a task is held out as a whole."""
    return isinstance(held_out, tuple) and not {task.name, task.asked_as}.isdisjoint(held_out)


def _held_out_documents(catalogue: Catalogue, share: float, seed: int) -> set[str]:
    """The documents to hold out so that each task's share of questions comes near to ``share``.

    From the end of the documents' order, so that the first questions of the run's order are mostly
    search questions. One is held out if that brings the tasks it is asked in nearer to their
    numbers, each deviation counted relative to the number. Tasks left with nothing held out then
    get their last document that no task needs for the search.
    """
    about = catalogue.documents()
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # questions by document and task
    for question in catalogue.questions:
        sizes[about[question.id]][question.task] += 1
    order = sorted(sizes, key=lambda document: _rank(document, seed), reverse=True)
    left = Counter(task for asked in sizes.values() for task in asked)  # documents for the search
    several = [task for task, count in left.items() if count > 1]
    total = Counter(question.task for question in catalogue.questions)
    wanted = {task.name: round(share * (total[task.name] + task.aside)) for task in catalogue.tasks}
    if share > 0:
        wanted |= {task: min(max(wanted[task], 1), total[task] - 1) for task in several}
    kept: Counter[str] = Counter()
    chosen: set[str] = set()

    def hold(document: str) -> None:
        chosen.add(document)
        kept.update(sizes[document])
        left.subtract(sizes[document].keys())

    def free(document: str) -> bool:
        return document not in chosen and all(left[task] > 1 for task in sizes[document])

    def nearer(document: str) -> bool:
        change = 0.0
        for task, count in sizes[document].items():
            missing = wanted[task] - kept[task]
            change += (abs(missing - count) - abs(missing)) / max(wanted[task], 1)
        return change < 0

    for document in order:
        if free(document) and nearer(document):
            hold(document)
    for task in sorted(several) if share > 0 else ():
        for document in order:
            if not kept[task] and task in sizes[document] and free(document):
                hold(document)
    return chosen


def emptied(questions: Questions, catalogue: Catalogue, held_out: tuple[str, ...]) -> list[str]:
    """Tasks that are to be searched on, all of whose documents belong to held-out tasks too.

    Returns:
        One line with all such tasks, or nothing.
    """
    task_of = {question.id: question.task for question in catalogue.questions}
    left = {task_of[name] for name in questions.search}
    none = [
        task.name
        for task in catalogue.tasks
        if task.name not in left and not held_out_whole(task, held_out)
    ]
    if not none:
        return []
    return [
        f"held_out: expected tasks about other documents than those searched on, got "
        f"{', '.join(held_out)}, which share all documents with {', '.join(none)}; hold out a "
        "share (such as 0.3), or leave one of them out"
    ]


def document_notes(
    questions: Questions, catalogue: Catalogue, held_out: float | tuple[str, ...]
) -> list[str]:
    """What a user should know of questions that share documents, a sentence each."""
    about = catalogue.documents()
    of_task: dict[str, list[str]] = {task.name: [] for task in catalogue.tasks}
    for question in catalogue.questions:
        of_task[question.task].append(about[question.id])
    notes = [
        f"{name}: {counted(len(asked), 'question')} about {counted(len(set(asked)), 'document')}; "
        "those about one document are kept in one split and count as one in statistics."
        for name, asked in of_task.items()
        if len(set(asked)) < len(asked)
    ]
    for (one, first), (other, second) in combinations(of_task.items(), 2):
        if common := len(set(first) & set(second)):
            notes.append(
                f"{one} and {other} share {counted(common, 'document')}, "
                "each kept in one split for both."
            )
    dropped = len(catalogue.questions) - len(questions.search) - len(questions.held_out)
    if dropped and isinstance(held_out, tuple):
        notes.append(
            f"{counted(dropped, 'question')} about documents of held-out tasks not asked "
            f"({', '.join(held_out)})."
        )
    return notes


def held_out_problems(
    questions: Questions, catalogue: Catalogue, held_out: float | tuple[str, ...]
) -> list[str]:
    """What is wrong with a split: tasks with too few held-out questions to judge a winner by.

    Args:
        questions: As ``divide`` gave them.
        catalogue: All questions.
        held_out: What they were divided by; 0 holds nothing out and is fine.

    Returns:
        One line with all such tasks, or nothing.
    """
    if held_out == 0:
        return []
    asked = Counter(question.task for question in catalogue.questions)
    task_of = {question.id: question.task for question in catalogue.questions}
    kept = Counter(task_of[name] for name in questions.held_out)
    few = [
        task.name
        for task in catalogue.tasks
        if kept[task.name] < FEWEST_HELD_OUT
        and (not isinstance(held_out, tuple) or held_out_whole(task, held_out))
    ]
    if not few:
        return []
    got = ", ".join(f"{kept[name]} of {asked[name]} from {name!r}" for name in few)
    share = math.ceil(100 * FEWEST_HELD_OUT / max(1, min(asked[name] for name in few))) / 100
    raised = (
        f"hold out {share:g} or more, " if not isinstance(held_out, tuple) and share <= 0.9 else ""
    )
    return [
        f"held_out: expected at least {FEWEST_HELD_OUT} questions of a task, got {got}; {raised}"
        "take tasks with more questions (or a larger limit), or set held_out: 0"
    ]


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
