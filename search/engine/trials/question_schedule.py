"""Which questions a candidate is asked: the next block of a fixed order, larger as a run goes on.

Asking every candidate the same few questions would find the recipe that suits those few. So each is
asked the next ones of its tasks, in the run's fixed order and around again, and scores are compared
after taking away what makes questions differ (``search.samplers.estimation.comparable_scores``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from evaluators.protocol import Catalogue, attention

SMALLEST = 60
"""Questions that tell a good recipe from a bad one, more or less."""

FEWEST = 10
"""Of each task, where it has them: its part of a score is not to be a matter of luck."""


class QuestionSchedule:
    """Deals out the search questions of a run.

    Args:
        catalogue: Tasks and questions.
        questions: Ids of the search questions in the run's order.
        all_at_once: Ask every candidate all of them.
    """

    def __init__(
        self, catalogue: Catalogue, questions: Sequence[str], *, all_at_once: bool
    ) -> None:
        task_of = {question.id: question.task for question in catalogue.questions}
        order: dict[str, list[str]] = {}
        for name in questions:
            order.setdefault(task_of[name], []).append(name)
        self._questions = tuple(questions)
        self._task_of = task_of
        self._order = order
        self._weights = attention([task for task in catalogue.tasks if task.name in order])
        # A metric that is no mean over questions has to be asked of all of them at once.
        self._together = {task.name for task in catalogue.tasks if not task.mean}
        self._all_at_once = all_at_once or self._together >= order.keys()
        self._next = dict.fromkeys(order, 0)
        self._dealt = 0

    @property
    def total(self) -> int:
        """Number of search questions."""
        return len(self._questions)

    @property
    def grows(self) -> bool:
        """Whether candidates are asked blocks, and blocks in steps."""
        return not self._all_at_once and not self._together

    def resume(self, blocks: Collection[Sequence[str]], *, asked: int) -> None:
        """Take note of the blocks that were dealt out, and the questions asked, before."""
        for block in blocks:
            self._note(block)
        self._dealt = asked

    def count(self, asked: int) -> None:
        """Take note of questions that were asked."""
        self._dealt += asked

    def block(self, *, whole: bool = False) -> tuple[str, ...]:
        """The questions for the next new candidate, so ordered that every head has all tasks.

        Args:
            whole: Take all questions, whatever the size of a block.
        """
        if self._all_at_once:
            return self._questions
        if whole:
            return _mixed(self._order)
        sizes = self._shares(self.size)
        found = {
            task: [names[(self._next[task] + at) % len(names)] for at in range(sizes[task])]
            for task, names in self._order.items()
        }
        block = _mixed(found)
        self._note(block)
        return block

    def more(self, answered: Collection[str]) -> tuple[str, ...]:
        """Further questions for a candidate that answered some; none when it answered all."""
        left = {
            task: [name for name in names if name not in answered]
            for task, names in self._order.items()
            if task not in self._together
        }
        room = {task: len(names) for task, names in left.items() if names}
        sizes = self._shares(self.size, room)
        return _mixed({task: left[task][: sizes[task]] for task in room})

    def rest(self, answered: Collection[str]) -> tuple[str, ...]:
        """All search questions that a candidate has not answered."""
        return tuple(
            name
            for task, names in self._order.items()
            if task not in self._together
            for name in names
            if name not in answered
        )

    @property
    def size(self) -> int:
        """How many questions a block has now.

        The root of the number asked so far: after as many candidates as there were blocks, each
        is asked about half as many questions as there are candidates, so that doubt about single
        scores and the number of scores shrink what is not known alike.
        """
        smallest = max(SMALLEST, FEWEST * len(self._order))
        size = max(smallest, round(math.sqrt(self._dealt)))
        return self.total if size > 0.8 * self.total else size

    def _shares(self, size: int, room: Mapping[str, int] | None = None) -> dict[str, int]:
        """How many questions of each task: by its attention, as far as there are so many."""
        room = room if room is not None else {task: len(n) for task, n in self._order.items()}
        shares = {task: room[task] for task in room if task in self._together}
        open_tasks, left = [task for task in room if task not in shares], size
        # The smallest tasks first: what they cannot take goes to the others.
        for task in sorted(open_tasks, key=lambda name: room[name] / self._weights[name]):
            rest = sum(self._weights[name] for name in open_tasks if name not in shares)
            fair = max(round(left * self._weights[task] / rest), FEWEST)
            shares[task] = min(room[task], fair)
            left = max(0, left - shares[task])
        return shares

    def _note(self, block: Sequence[str]) -> None:
        for name in block:
            task = self._task_of[name]
            self._next[task] = (self._next[task] + 1) % len(self._order[task])


def _mixed(by_task: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All questions, so that the first so many hold the same share of every task."""
    placed = [
        ((at + 0.5) / len(names), rank, name)
        for rank, names in enumerate(by_task.values())
        for at, name in enumerate(names)
    ]
    return tuple(name for _, _, name in sorted(placed))
