"""What questions say, as text for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evaluators.harness.answers.requests import AskedTask
from evaluators.protocol import QuestionText


def question_texts(tasks: Iterable[AskedTask]) -> dict[str, QuestionText]:
    """What every question of some tasks says, by id; those of which it cannot be told are left out.

    A task's functions are a stranger's, and may do without what is asked for here.
    """
    found: dict[str, QuestionText] = {}
    for task in tasks:
        for question in task.asked():
            try:
                found[question.id] = _text(task.task, task.document(question.position))
            except Exception:  # noqa: BLE001, S112 - without it nothing but the text is missing
                continue
    return found


def _text(task: Any, document: Any) -> QuestionText:
    prompt, target = task.doc_to_text(document), task.doc_to_target(document)
    chooses = task.get_config("doc_to_choice") is not None
    choices = tuple(str(one) for one in task.doc_to_choice(document)) if chooses else ()
    if isinstance(prompt, int):  # the choices come first, and the target goes on with each of them
        return QuestionText(prompt=str(target), expected=choices[prompt], choices=choices)
    targets = target if isinstance(target, list | tuple) else [target]
    right = (choices[one] if choices and isinstance(one, int) else str(one) for one in targets)
    return QuestionText(prompt=str(prompt), expected="\n".join(right), choices=choices)
