"""Names for questions that stay the same when a task's file is extended, sorted or cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from evaluators.protocol import Question

Keys = tuple[str, ...]
"""What tells that two questions are about the same document: that they have one in common."""


def questions_of(task: str, documents: Iterable[Any]) -> tuple[Question, ...]:
    """A question per document: ``task/`` and 16 hex digits of a hash over task and document.

    Equal documents are told apart by ``-2``, ``-3`` and so on, in split order. Their document key
    is the hash of the content alone, so that equal documents of several tasks share it.

    Args:
        task: Name of the task.
        documents: In split order; mappings of plain values, as lm-eval has them.
    """
    seen: dict[str, int] = {}
    result = []
    for position, document in enumerate(documents):
        name = f"{task}/{_digest(task, document)}"
        seen[name] = seen.get(name, 0) + 1
        suffix = f"-{seen[name]}" if seen[name] > 1 else ""
        result.append(
            Question(id=name + suffix, task=task, position=position, document=content_key(document))
        )
    return tuple(result)


def content_key(value: Any) -> str:
    """Hash of a document's content, or of anything that identifies it; 16 hex digits."""
    return _digest(None, value)


class Documents:
    """Tells which questions, of any task, are about the same document.

    Questions are about one document if they have a key in common, or if a chain of others joins
    them: a passage joins its questions, and equal content joins the questions of several tasks.

    Args:
        keys: Of every question, at least one each, the one to name the document by first.
    """

    def __init__(self, keys: Iterable[Keys]) -> None:
        self._parent: dict[str, str] = {}
        for first, *others in keys:
            self._parent.setdefault(first, first)
            for other in others:
                self._parent[self._root(other)] = self._root(first)
        self._name: dict[str, str] = {}
        for first, *_ in keys:
            root = self._root(first)
            self._name[root] = min(first, self._name.get(root, first))

    def about(self, keys: Keys) -> frozenset[str]:
        """Names of the documents that something with these keys is about."""
        return frozenset(self._name[self._root(key)] for key in keys if key in self._parent)

    def _root(self, key: str) -> str:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            self._parent[key] = parent = self._parent[parent]
        return parent


def about(
    questions: Sequence[Question], keys: Sequence[Keys], known: Documents
) -> tuple[Question, ...]:
    """The questions with the documents they are about.

    Args:
        questions: In any order.
        keys: Of each.
        known: Made of the keys of all tasks.
    """
    named = (min(known.about(one)) for one in keys)
    return tuple(replace(q, document=name) for q, name in zip(questions, named, strict=True))


def _digest(task: str | None, document: Any) -> str:
    text = json.dumps(
        [task, document], sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """JSON for what JSON does not know: arrays and numbers of numpy, sets, bytes, dates."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return str(value)
