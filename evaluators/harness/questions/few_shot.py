"""Worked examples in prompts: documents that are asked nowhere.

lm-eval draws the examples of a task from a split, or takes those of its file. A task that has no
other split than the one asked would show questions with their answers, its own and held-out ones:
then a few documents are set aside for examples and no longer asked, by any task.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluators.harness.questions.question_ids import Documents, Keys, content_key
from evaluators.protocol import EvaluatorError


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotPool:
    """The documents that a task's examples are drawn from.

    Attributes:
        source: Where they are from, in words.
        shots: Examples in a prompt.
        needed: Documents that drawing them takes: one more where the one asked is left out.
        first: Whether they are the first ones instead of drawn ones.
        documents: In the order of the split.
        keys: Of each.
    """

    source: str
    shots: int
    needed: int
    first: bool
    documents: tuple[Any, ...] = field(repr=False)
    keys: tuple[Keys, ...] = field(repr=False)

    def free(self, known: Documents, asked: frozenset[str]) -> list[int]:
        """Positions of those that are about none of the documents asked."""
        return [at for at, keys in enumerate(self.keys) if not known.about(keys) & asked]

    def shown(self, known: Documents, asked: frozenset[str]) -> list[Any]:
        """The documents that examples may be taken from: all, or the free ones, each once.

        Raises:
            EvaluatorError: If these are too few.
        """
        free = self.free(known, asked)
        if len(free) == len(self.documents):
            return list(self.documents)
        distinct = self._distinct(free)
        if len(distinct) < self.needed:
            most = max(0, len(distinct) - self.needed + self.shots)
            raise EvaluatorError(
                [
                    f"num_fewshot: expected at most {most} "
                    f"({self.source} has {len(distinct)} documents that are not asked), got "
                    f"{self.shots}"
                ]
            )
        return [self.documents[at] for at in distinct]

    def _distinct(self, positions: Sequence[int]) -> list[int]:
        """The first of each content."""
        seen = {content_key(self.documents[at]): at for at in reversed(positions)}
        return sorted(seen.values())

    def put_aside(self, known: Documents, asked: frozenset[str]) -> frozenset[str]:
        """Documents that must not be asked any more for the pool to have enough that are not.

        The first ones where examples are the first; else those first by a hash of the document, so
        that tasks about the same documents put the same ones aside.
        """
        if self.first:
            keys = self.keys[: self.shots]
            return frozenset[str]().union(*(known.about(one) for one in keys)) & asked
        missing = self.needed - len(self._distinct(self.free(known, asked)))
        if missing <= 0:
            return frozenset()
        about = {at: known.about(keys) for at, keys in enumerate(self.keys)}
        taken: set[str] = set()
        contents: set[str] = set()
        for at in sorted(about, key=lambda at: (sorted(map(_rank, about[at])), at)):
            if len(contents) >= missing:
                break
            if about[at] & asked:
                taken |= about[at] & asked
                contents.add(content_key(self.documents[at]))
        return frozenset(taken)


def pool_of(
    task: Any, keys: Callable[[Sequence[Any], str | None], tuple[Keys, ...]]
) -> FewShotPool | None:
    """The documents that a task's examples come from; ``None`` where it shows none.

    Args:
        task: lm-eval's, with its number of examples set.
        keys: Gives the keys of documents that were made of a split.

    Raises:
        EvaluatorError: If it has fewer than it shows.
    """
    shots = int(task.get_config("num_fewshot") or 0)
    if not shots:
        return None
    drawn = hasattr(task, "sampler")
    documents = tuple(task.sampler.fewshot_docs() if drawn else task.fewshot_docs())
    split, source = _source(task)
    # Compared as lm-eval does before it leaves out the document asked from those drawn.
    own = _own_split(task) == task.get_config("test_split")
    first = getattr(getattr(task, "fewshot_cfg", None), "sampler", None) == "first_n"
    needed = shots + (own and not first)
    spare = needed - shots + (split == asked_split(task))
    if len(documents) < shots + spare:
        most = max(0, len(documents) - spare)
        raise EvaluatorError(
            [
                f"num_fewshot: expected at most {most} ({source} has {len(documents)} documents to "
                f"take worked examples from), got {shots}"
            ]
        )
    return FewShotPool(
        source=source,
        shots=shots,
        needed=needed,
        first=first,
        documents=documents,
        keys=keys(documents, split),
    )


class FewShotExamples:
    """lm-eval's sampler of examples, which hands out copies: tasks may change what they are given.

    Attributes:
        asked: Keys of all documents that are asked; none of them is handed out.
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self.asked: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def sample(self, n: int, eval_doc: Any = None, **options: Any) -> list[Any]:
        """Documents to show before one.

        Raises:
            EvaluatorError: If the sampler has documents of its own, which are asked.
        """
        found = copy.deepcopy(list(self._sampler.sample(n, eval_doc=eval_doc, **options)))
        for document in found:
            if content_key(document) in self.asked:
                raise EvaluatorError(
                    [
                        "fewshot_config: expected a sampler that draws from the documents it is "
                        f"given, got {type(self._sampler).__name__}, which shows questions that "
                        "are asked"
                    ]
                )
        return found


def asked_split(task: Any) -> str | None:
    """The split whose documents a task asks."""
    split = task.get_config("test_split" if task.has_test_docs() else "validation_split")
    return None if split is None else str(split)


def _own_split(task: Any) -> str | None:
    """The split that the task itself names for examples."""
    config = getattr(task, "fewshot_cfg", None)
    split = getattr(config, "split", None)
    return None if split is None else str(split)


def _source(task: Any) -> tuple[str | None, str]:
    """The split that examples come from by lm-eval's rules, and where that is in words."""
    split = _own_split(task)
    samples = getattr(getattr(task, "fewshot_cfg", None), "samples", None)
    if split is None and samples is not None:
        return None, "the list in its fewshot_config"
    if split is None:
        own = ("training_split", "validation_split", "test_split")
        split = next((str(name) for key in own if (name := task.get_config(key))), None)
    return split, f"split {split!r}"


def _rank(document: str) -> str:
    return hashlib.sha256(f"example:{document}".encode()).hexdigest()
