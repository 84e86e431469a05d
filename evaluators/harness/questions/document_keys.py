"""What identifies a document of an lm-eval task: when two questions are about the same thing.

A document is known by its content, by the row of the data set that it was made from (tasks may
rewrite rows with ``process_docs``), by what is asked of it (data sets may number their rows), and
by the group that the user names. Two documents with one of these in common are the same.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from evaluators.harness.process_isolation import seeded
from evaluators.harness.questions.question_ids import Keys, content_key
from evaluators.protocol import EvaluatorError
from spaces.text.error_text import class_and_last_line

_ROW = "__row__"
"""Column that follows rows through ``process_docs``."""

_TEMPLATES = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_TEMPLATES.filters["regex_replace"] = lambda text, pattern, by, count=0: re.sub(
    pattern, by, text, count=count
)

Read = Callable[[Any], Any]


def keys_of(
    documents: Sequence[Any],
    *,
    rows: Sequence[Any] = (),
    asked: Read | None = None,
    group_by: str | None = None,
) -> tuple[Keys, ...]:
    """The keys of documents, that of the group first, where there is one.

    Args:
        documents: As they are asked.
        rows: What each was made from; empty where that is not known, or the same.
        asked: Gives what is asked of a document, ``None`` where that says nothing.
        group_by: Field of the documents or rows, or Jinja template over their fields; documents
            for which it gives nothing are groups of their own.

    Raises:
        EvaluatorError: If a document has no such field.
    """
    group = None if group_by is None else _grouping(group_by)
    found = []
    for at, document in enumerate(documents):
        row = rows[at] if rows else None
        keys = [content_key(document)]
        if row is not None:
            keys.append(content_key(row))
        if asked is not None and (said := asked(document)) is not None:
            keys.append(content_key(said))
        if group is not None and (value := group(document, row)) not in (None, ""):
            keys.insert(0, content_key(["group", str(value)]))
        found.append(tuple(dict.fromkeys(keys)))
    return tuple(found)


def rows_of(task: Any, split: str | None, process: Callable[[Any], Any] | None) -> Sequence[Any]:
    """The rows of the data that a task's documents were made from, in the documents' order.

    Args:
        task: lm-eval's.
        split: Name of the split.
        process: What makes the documents of the split's rows; ``None`` where they are the rows.

    Returns:
        Nothing where documents are the rows, or it cannot be told which row made which document.
    """
    rows = None if process is None else getattr(task, "dataset", {}).get(split)
    if process is None or rows is None:
        return ()
    with seeded(torch.device("cpu"), python=0, others=0):  # as if it had not been called again
        try:
            made = process(rows.add_column(_ROW, list(range(len(rows)))))
            places = [document[_ROW] for document in made]
        except Exception:  # noqa: BLE001 - whatever it cannot do with the column, nothing is lost
            places = []
    return list(rows.select(places)) if places else ()


def asking(task: Any) -> Read:
    """What a task asks of a document: text, choices in any order, right answer."""
    fields = ("description", "doc_to_text", "doc_to_choice", "doc_to_target")
    description, text, choices, target = (_reader(task.get_config(key)) for key in fields)

    def read(document: Any) -> Any:
        if task.get_config("use_prompt") is not None:
            return None
        try:
            said = [description(document), text(document)]
            answer, listed = target(document), choices(document)
            if isinstance(listed, str):
                listed = ast.literal_eval(listed)
            if listed and str(answer).isdigit():
                answer = listed[int(answer)]
            parts = [*said, sorted(map(str, listed or ())), answer]
        except Exception:  # noqa: BLE001 - the task itself will say what is wrong with it
            return None
        return parts if any(parts[1:]) else None

    return read


def _reader(value: Any) -> Read:
    """How lm-eval reads a field of a task's file off a document."""
    template = _TEMPLATES.from_string(value) if isinstance(value, str) else None

    def read(document: Any) -> Any:
        if template is not None:
            return document[value] if value in document else template.render(**document)
        if callable(value):
            return value(copy.deepcopy(document))
        return list(value.values()) if isinstance(value, dict) else value

    return read


def _grouping(group_by: str) -> Callable[[Any, Any], Any]:
    template = None
    try:
        if "{{" in group_by or "{%" in group_by:
            template = _TEMPLATES.from_string(group_by)
    except Exception as error:
        raise EvaluatorError([f"group_by: {class_and_last_line(error)}"]) from error

    def read(document: Any, row: Any) -> Any:
        fields = {**(row if isinstance(row, dict) else {})}
        fields |= document if isinstance(document, dict) else {}
        try:
            return fields[group_by] if template is None else template.render(**fields)
        except Exception as error:
            known = ", ".join(map(str, fields)) or "none"
            why = "" if template is None else f" ({class_and_last_line(error)})"
            raise EvaluatorError(
                [
                    f"group_by: expected a field of every document ({known}) or a template over "
                    f"them, got {group_by!r}{why}"
                ]
            ) from error

    return read
