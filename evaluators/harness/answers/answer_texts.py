"""What a model answered, as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from evaluators.harness.answers.answer_endings import AnswerEnd

BETWEEN = "\n--- another answer ---\n"
"""What stands between several answers to one question."""


def answer_text(
    requests: Sequence[Any], metric: str, ends: Mapping[int, Sequence[AnswerEnd]]
) -> str:
    """The answer to one question; empty where the model only rates a whole text.

    A written answer stands as it came, after its thoughts. Of choices, the one that the model took
    is followed by the log-likelihoods of all, in their order; of a text that is to be continued,
    there is no more than its log-likelihood.

    Args:
        requests: What was asked of the question, in order, with the responses.
        metric: Name of the task's metric, which says how likelihoods are compared.
        ends: How each written answer ended, by ``id`` of its request.
    """
    kind = requests[0].request_type
    if kind == "generate_until":
        written = (
            end.thought + str(answer)
            for one in requests
            for end, answer in zip(ends[id(one)], one.resps, strict=True)
        )
        return BETWEEN.join(written)
    if kind != "loglikelihood":
        return ""
    # Some tasks also rate the choices without the prompt.
    rated = [one for one in requests if one.args[0]] or list(requests)
    likelihoods = [float(one.resps[0][0]) for one in rated]
    listed = ", ".join(f"{one:.2f}" for one in likelihoods)
    if len(rated) == 1:
        return f"log-likelihood: {listed}"
    choices = _choices(rated)
    keys = [
        likelihood / max(1, _size(choice, metric))
        for likelihood, choice in zip(likelihoods, choices, strict=True)
    ]
    return f"{choices[keys.index(max(keys))]}\nlog-likelihoods: {listed}"


def _choices(rated: Sequence[Any]) -> list[str]:
    """What tells the requests apart: how they go on, or else where their prompts part."""
    answers = [str(one.args[1]).strip() for one in rated]
    if len(set(answers)) > 1:
        return answers
    prompts = [str(one.args[0]) for one in rated]
    start = sum(1 for _ in takewhile(lambda here: len({*here}) == 1, zip(*prompts, strict=False)))
    return [prompt[start:].strip() for prompt in prompts]


def _size(choice: str, metric: str) -> int:
    """What lm-eval divides a choice's log-likelihood by."""
    match metric:
        case "acc_norm":
            return len(choice)
        case "acc_bytes":
            return len(choice.encode())
        case _:
            return 1
