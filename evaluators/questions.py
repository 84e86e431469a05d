"""Names for questions that stay the same when a task's file is extended, sorted or cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from evaluators.base import Question


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
            Question(
                id=name + suffix, task=task, position=position, document=_digest(None, document)
            )
        )
    return tuple(result)


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
