"""How probable a model finds the right answers: a measure that few questions settle.

A score counts answers that are right; it moves in steps, and a dozen questions say little. The
loss of the right answer, in nats per token, moves with every weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluators.harness.answers.requests import AskedTask
from evaluators.resident_models.candidate_failures import NonFiniteScoreError


def right_answer(task: AskedTask, position: int, requests: Sequence[Any]) -> Any | None:
    """The request for the likelihood of a question's right answer; ``None`` where none is known.

    Args:
        task: The question's task.
        position: The question's document.
        requests: What is asked of the question, in order.
    """
    first = requests[0]
    if first.request_type in ("loglikelihood_rolling", "loglikelihood") and len(requests) == 1:
        return replace(first, resps=[], filtered_resps={})
    target = task.task.doc_to_target(task.document(position))
    if isinstance(target, list | tuple):
        target = target[0] if target else None
    if first.request_type == "generate_until":
        if not isinstance(target, str) or not target:
            return None
        text = str(task.task.get_config("target_delimiter") or "") + target
        arguments = (first.args[0], text)
        return replace(first, request_type="loglikelihood", arguments=arguments, resps=[])
    if isinstance(target, str):
        choices = list(task.task.doc_to_choice(task.document(position)))
        target = choices.index(target) if target in choices else None
    if not isinstance(target, int) or not 0 <= target < len(requests):
        return None
    return replace(requests[target], resps=[], filtered_resps={})


def losses(lm: Any, requests: Mapping[str, Any]) -> dict[str, float]:
    """The loss of each answer: its negative log-likelihood in nats per token.

    Args:
        lm: lm-eval's model.
        requests: What ``right_answer`` gave, by question.

    Raises:
        NonFiniteScoreError: If one is not finite.
    """
    found: dict[str, float] = {}
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        asked = {name: one for name, one in requests.items() if one.request_type == kind}
        if not asked:
            continue
        answers = getattr(lm, kind)(list(asked.values()), disable_tqdm=True)
        for (name, request), answer in zip(asked.items(), answers, strict=True):
            value = -float(answer[0] if isinstance(answer, tuple) else answer)
            value /= max(1, len(lm.tok_encode(request.args[-1])))
            if not math.isfinite(value):
                raise NonFiniteScoreError(f"question {name}: the loss is {value}")
            found[name] = value
    return found
